package check

import "encoding/json"

// MarshalJSON writes the verdict for programs:
//
//	{"status": "CRITICAL", "code": 2, "summary": "...", "late": 1, "near": 0, "reports": 0, "bad": 0, "broken": 0,
//	 "jobs": [{"job": "vm1", "status": "CRITICAL", "age": 266400, "sla_limit": 129600, "never": false, ...}],
//	 "findings": [{"status": "CRITICAL", "job": "vm1", "text": "..."}]}
//
// Ages and limits are seconds. A finding of status OK is merely told, and one without a job is about the repository.
func (v Verdict) MarshalJSON() ([]byte, error) {
	type finding struct {
		Status string `json:"status"`
		Job    string `json:"job,omitempty"`
		Text   string `json:"text"`
	}
	type job struct {
		Job        string   `json:"job"`
		Status     string   `json:"status"`
		Age        float64  `json:"age"`
		Limit      float64  `json:"sla_limit"`
		Never      bool     `json:"never"`
		Revisions  int      `json:"revisions"`
		Distrusted int      `json:"distrusted"`
		Manual     []string `json:"manual_tags"`
	}
	f := v.Facts
	out := struct {
		Status   string    `json:"status"`
		Code     int       `json:"code"`
		Summary  string    `json:"summary"`
		Late     int       `json:"late"`
		Near     int       `json:"near"`
		Reports  int       `json:"reports"`
		Bad      int       `json:"bad"`
		Broken   int       `json:"broken"`
		Jobs     []job     `json:"jobs"`
		Findings []finding `json:"findings"`
	}{v.Level.String(), int(v.Level), v.Summary, v.Late, v.Near, f.Reports, f.Bad, f.Broken, []job{}, []finding{}}
	worst := map[string]Level{}
	for _, f := range v.Findings {
		if l, ok := worst[f.Job]; !ok || f.Level.badness() > l.badness() {
			worst[f.Job] = f.Level
		}
		out.Findings = append(out.Findings, finding{f.Level.String(), f.Job, f.Text})
	}
	for _, j := range f.Jobs {
		manual := j.Manual
		if manual == nil {
			manual = []string{}
		}
		out.Jobs = append(out.Jobs, job{j.Name, worst[j.Name].String(), j.Age.Seconds(), j.Limit.Seconds(), j.Never, j.Revisions, j.Distrusted, manual})
	}
	return json.Marshal(out)
}
