package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"

	"backy/pkg/config"
	"backy/pkg/sched"
)

// Job is a job of the configuration, as GET /v1/jobs tells it.
type Job struct {
	Name     string   `json:"name"`
	Schedule string   `json:"schedule"` // its name
	Tags     []string `json:"tags"`     // of the schedule, the shortest interval first
	Pool     string   `json:"pool"`
	Source   string   `json:"source"` // its type, such as file
}

// Problem is the answer to a request that failed.
type Problem struct {
	Error    string   `json:"error"`              // one line
	Mistakes []string `json:"mistakes,omitempty"` // of a configuration, each with file, line and column
}

// answer writes a value as one line of JSON.
func answer(w http.ResponseWriter, code int, value any) {
	text, err := json.Marshal(value)
	if err != nil { // nothing that we send can fail
		code, text = http.StatusInternalServerError, []byte(`{"error":"the answer cannot be written as JSON"}`)
	}
	text = append(text, '\n')
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(code)
	_, _ = w.Write(text) // who asked may have gone
}

// fail answers with an error.
func fail(w http.ResponseWriter, code int, err error) {
	answer(w, code, Problem{Error: oneLine(err.Error())})
}

func health(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, map[string]string{"status": "ok"})
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	var filter *regexp.Regexp
	if text := r.URL.Query().Get("filter"); text != "" {
		var err error
		if filter, err = regexp.Compile(text); err != nil {
			fail(w, http.StatusBadRequest, fmt.Errorf("filter: %w", err))
			return
		}
	}
	answer(w, http.StatusOK, filled(s.control.Status(filter)))
}

// filled makes empty lists of those that are nil, which JSON would call null.
func filled(list []sched.JobStatus) []sched.JobStatus {
	all := make([]sched.JobStatus, len(list))
	for i, j := range list {
		for _, l := range []*[]string{&j.LastTags, &j.NextTags, &j.ManualTags, &j.ProblemReports} {
			if *l == nil {
				*l = []string{}
			}
		}
		all[i] = j
	}
	return all
}

func (s *Server) jobs(w http.ResponseWriter, _ *http.Request) {
	list := []Job{}
	for _, j := range s.control.Config().Jobs {
		list = append(list, Job{Name: j.Name, Schedule: j.ScheduleName, Tags: j.Schedule.Tags(), Pool: j.Pool, Source: j.Source.Type})
	}
	answer(w, http.StatusOK, list)
}

func (s *Server) run(w http.ResponseWriter, r *http.Request) {
	switch err := s.control.Run(r.PathValue("name")); {
	case errors.Is(err, sched.ErrNoJob):
		fail(w, http.StatusNotFound, err)
	case err != nil:
		fail(w, http.StatusInternalServerError, err)
	default:
		w.WriteHeader(http.StatusAccepted)
	}
}

func (s *Server) runAll(w http.ResponseWriter, _ *http.Request) {
	s.control.RunAll()
	w.WriteHeader(http.StatusAccepted)
}

func (s *Server) reload(w http.ResponseWriter, _ *http.Request) {
	err := s.control.Reload()
	var mistakes config.Mistakes
	switch {
	case errors.As(err, &mistakes):
		p := Problem{Error: oneLine(fmt.Sprintf("the configuration has %d mistakes; the one before holds", len(mistakes)))}
		if len(mistakes) == 1 {
			p.Error = oneLine("the configuration before holds: " + mistakes[0].Error())
		}
		for _, m := range mistakes {
			p.Mistakes = append(p.Mistakes, oneLine(m.Error()))
		}
		answer(w, http.StatusUnprocessableEntity, p)
	case err != nil:
		fail(w, http.StatusConflict, err)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

func (s *Server) backups(w http.ResponseWriter, _ *http.Request) {
	names := []string{}
	for _, j := range s.control.Status(nil) {
		if j.Status == sched.StatusDead {
			names = append(names, j.Job)
		}
	}
	answer(w, http.StatusOK, names)
}
