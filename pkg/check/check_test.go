package check

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"time"
)

const (
	hour = time.Hour
	day  = 24 * time.Hour
	sla  = 36 * time.Hour
)

// The grammar of the Monitoring Plugins Development Guidelines (Plugin Output; Performance data; Threshold and Ranges).
var (
	first   = regexp.MustCompile(`^(OK|WARNING|CRITICAL|UNKNOWN): ([^|\n]+?)(?: \| ([^|\n]+))?$`)
	rangeRE = `(?:@?(?:~:|-?[0-9.]+:)?(?:-?[0-9.]+)?)`
	item    = regexp.MustCompile(`^(?:'((?:[^'=|]|'')+)'|([^\s'=|]+))=(U|-?[0-9]+(?:\.[0-9]+)?)(us|ms|s|%|B|KB|MB|TB|c)?` +
		`(?:;(` + rangeRE + `)(?:;(` + rangeRE + `)(?:;(-?[0-9.]*)(?:;(-?[0-9.]*))?)?)?)?(?: |$)`)
)

// parse takes a plugin's output apart, and returns what does not conform.
func parse(out string) (level, text string, figures map[string]string, err error) {
	lines := strings.Split(out, "\n")
	if len(lines) < 2 || lines[len(lines)-1] != "" {
		return "", "", nil, fmt.Errorf("the last line has no end")
	}
	if len(out) > 8192 {
		return "", "", nil, fmt.Errorf("%d bytes are more than is read", len(out))
	}
	m := first.FindStringSubmatch(lines[0])
	if m == nil {
		return "", "", nil, fmt.Errorf("the first line is none: %q", lines[0])
	}
	figures = map[string]string{}
	for rest := m[3]; rest != ""; {
		f := item.FindStringSubmatch(rest)
		if f == nil {
			return "", "", nil, fmt.Errorf("no figure: %q", rest)
		}
		if _, twice := figures[f[1]+f[2]]; twice {
			return "", "", nil, fmt.Errorf("%s is there twice", f[1]+f[2])
		}
		figures[f[1]+f[2]] = f[3] + f[4]
		rest = rest[len(f[0]):]
	}
	for _, line := range lines[1 : len(lines)-1] {
		if line == "" || strings.ContainsAny(line, "|\r\t\x00") {
			return "", "", nil, fmt.Errorf("no detail: %q", line)
		}
	}
	return m[1], m[2], figures, nil
}

func TestJudge(t *testing.T) {
	good := Job{Name: "good", Age: 6 * hour, Limit: sla, Revisions: 3}
	with := func(change func(*Job)) Job {
		j := good
		j.Name = "vm1"
		change(&j)
		return j
	}
	aged := func(age time.Duration) Job { return with(func(j *Job) { j.Age = age }) }
	never := func(age time.Duration) Job {
		return with(func(j *Job) { j.Age, j.Never, j.Revisions = age, true, 0 })
	}
	for _, test := range []struct {
		name  string
		facts Facts
		want  string
	}{
		{"no job", Facts{}, "OK: 0 jobs within SLA"},
		{"one", Facts{Jobs: []Job{good}}, "OK: 1 job within SLA"},
		{"a day old is fine", Facts{Jobs: []Job{good, aged(day)}}, "OK: 2 jobs within SLA"},
		{"80 %, just", Facts{Jobs: []Job{good, aged(sla * 8 / 10)}}, "OK: 2 jobs within SLA"},
		{"a second more", Facts{Jobs: []Job{good, aged(sla*8/10 + time.Second)}}, "WARNING: 1 of 2 jobs near the SLA: vm1 (1d 4h, SLA 1d 12h); 2 jobs within SLA"},
		{"the SLA, just", Facts{Jobs: []Job{good, aged(sla)}}, "WARNING: 1 of 2 jobs near the SLA: vm1 (1d 12h, SLA 1d 12h); 2 jobs within SLA"},
		{"a nanosecond more", Facts{Jobs: []Job{good, aged(sla + 1)}}, "CRITICAL: 1 of 2 jobs late: vm1 (1d 12h, SLA 1d 12h); 1 job within SLA"},
		{"two days", Facts{Jobs: []Job{good, aged(48 * hour)}}, "CRITICAL: 1 of 2 jobs late: vm1 (2d, SLA 1d 12h); 1 job within SLA"},
		{"all are late", Facts{Jobs: []Job{aged(48 * hour)}}, "CRITICAL: 1 of 1 job late: vm1 (2d, SLA 1d 12h)"},
		{"new, and never backed up", Facts{Jobs: []Job{good, never(hour)}}, "OK: 2 jobs within SLA"},
		{"never backed up", Facts{Jobs: []Job{good, never(40 * hour)}}, "CRITICAL: 1 of 2 jobs late: vm1 (never backed up, SLA 1d 12h); 1 job within SLA"},
		{"distrusted", Facts{Jobs: []Job{good, with(func(j *Job) { j.Distrusted = 2 })}}, "WARNING: 2 revisions distrusted: vm1; 2 jobs within SLA"},
		{"a manual tag", Facts{Jobs: []Job{with(func(j *Job) { j.Manual = []string{"manual:x"} })}}, "OK: 1 job within SLA"},
		{"no schedule", Facts{Jobs: []Job{good, with(func(j *Job) { j.Limit, j.Age = 0, 999*day })}}, "OK: 1 job within SLA; 1 without a schedule"},
		{"a schedule that is not known", Facts{Jobs: []Job{good, with(func(j *Job) { j.Limit, j.Blind = 0, true })}, Findings: []Finding{{Unknown, "vm1", "its schedule is not known: x"}}},
			"UNKNOWN: 1 of 2 jobs unknown: vm1; vm1: its schedule is not known: x; 1 job within SLA"},
		{"reports", Facts{Jobs: []Job{good}, Reports: 1}, "WARNING: 1 report in quarantine; 1 job within SLA"},
		{"bad objects", Facts{Jobs: []Job{good}, Bad: 2}, "WARNING: 2 objects bad; 1 job within SLA"},
		{"something else to warn of", Facts{Jobs: []Job{good}, Findings: []Finding{{Warning, "good", "1 .rev file broken"}}}, "WARNING: good: 1 .rev file broken; 1 job within SLA"},
		{"something to know", Facts{Jobs: []Job{good}, Findings: []Finding{{OK, "old", "dead"}}}, "OK: 1 job within SLA"},
		{"something that is not known", Facts{Jobs: []Job{good}, Reports: 1, Findings: []Finding{{Unknown, "", "list reports: no"}}},
			"UNKNOWN: list reports: no; 1 report in quarantine; 1 job within SLA"},
		{"late, by what can be read", Facts{Jobs: []Job{good, with(func(j *Job) { j.Age, j.Blind = 48*hour, true })}, Findings: []Finding{{Unknown, "vm1", "no permission"}}},
			"UNKNOWN: 1 of 2 jobs unknown: vm1 (2d, SLA 1d 12h); vm1: no permission; 1 job within SLA"},
		{"a directory that cannot be read is not one that is empty", Facts{Jobs: []Job{{Name: "vm1", Age: 48 * hour, Limit: sla, Never: true, Blind: true}}, Findings: []Finding{{Unknown, "vm1", "no permission"}}},
			"UNKNOWN: 1 of 1 job unknown: vm1 (no good backup that can be read, SLA 1d 12h); vm1: no permission"},
		{"in time, whatever cannot be read", Facts{Jobs: []Job{with(func(j *Job) { j.Blind = true })}, Findings: []Finding{{Unknown, "vm1", "no permission"}}},
			"UNKNOWN: vm1: no permission; 1 job within SLA"},
		{"the worst is named first, and makes the code", Facts{Jobs: []Job{good, aged(48 * hour), {Name: "b", Age: 9 * day, Limit: sla, Distrusted: 1, Revisions: 1}, {Name: "c", Age: 30 * hour, Limit: sla}},
			Findings: []Finding{{Unknown, "", "x"}}, Reports: 3}, "CRITICAL: 2 of 4 jobs late: b (9d, SLA 1d 12h), vm1 (2d, SLA 1d 12h); x; 1 of 4 jobs near the SLA: c (1d 6h, SLA 1d 12h); " +
			"1 revision distrusted: b; 3 reports in quarantine; 2 jobs within SLA"},
	} {
		v := Judge(test.facts, DefaultThresholds)
		if got := v.Level.String() + ": " + v.Summary; got != test.want {
			t.Errorf("%s:\n%s, want\n%s", test.name, got, test.want)
		}
		level, text, figures, err := parse(v.Plugin(true, true))
		if err != nil || level+": "+text != test.want || figures["jobs"] != fmt.Sprint(len(test.facts.Jobs)) {
			t.Errorf("%s: %v %v\n%s", test.name, err, figures, v.Plugin(true, true))
		}
	}
}

func TestThresholds(t *testing.T) {
	facts := Facts{Jobs: []Job{{Name: "vm1", Age: 27 * hour, Limit: 36 * hour}}} // 75 %
	for _, test := range []struct {
		warning, critical string
		want              Level
	}{{"80", "100", OK}, {"75", "100", OK}, {"74.9", "100", Warning}, {"50", "70", Critical}, {"@70:80", "100", Warning}, {"~:", "~:", OK}, {"80:", "100", Warning}, {"50%", "80%", Warning}} {
		var limits Thresholds
		var err error
		if limits.Warning, err = ParseRange(test.warning); err != nil {
			t.Fatal(err)
		}
		if limits.Critical, err = ParseRange(test.critical); err != nil {
			t.Fatal(err)
		}
		v := Judge(facts, limits)
		if _, _, figures, err := parse(v.Plugin(false, true)); v.Level != test.want || err != nil || figures["age"] != "75%" || figures["age_vm1"] != "97200s" {
			t.Errorf("%s, %s: %s, %v %v", test.warning, test.critical, v.Level, figures, err)
		}
	}
	v := Judge(facts, DefaultThresholds)
	if line := v.Plugin(false, true); !strings.Contains(line, " 'age_vm1'=97200s;103680;129600;0;\n") {
		t.Error(line)
	}
}

func TestParseRange(t *testing.T) {
	for text, test := range map[string]struct{ in, out float64 }{
		"10": {0, -1}, "0:10": {10, 10.1}, "10:": {10, 9}, "~:10": {-1e9, 10.5}, "10:20": {15, 21}, "@10:20": {21, 10}, "-5:5": {-5, 6}, "1.5": {1.5, 1.6}, "80%": {80, 81}, "@~:3": {4, 3}, "~:": {0, math.NaN()},
	} {
		r, err := ParseRange(text)
		if err != nil || r.Alerts(test.in) || !math.IsNaN(test.out) && !r.Alerts(test.out) {
			t.Errorf("%s: %+v, %v", text, r, err)
		}
		again, err := ParseRange(r.String())
		if err != nil || again != r {
			t.Errorf("%s is written as %s, which is %+v, %v", text, r, again, err)
		}
	}
	for text, want := range map[string]string{"": "there is no number", "@": "there is no number", ":": `"" is no number`, "x": `"x" is no number`, "20:10": "it ends before it begins",
		"1:2:3": `"2:3" is no number`, "1e3": "no number", "inf": "no number", "NaN": "no number", "1..2": "is not understood", ":10": "no number", "--1": "is not understood"} {
		if _, err := ParseRange(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func FuzzParseRange(f *testing.F) {
	for _, text := range []string{"10", "@10:20", "~:5%", "5:", "-1:2.5"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ParseRange(text)
		if err != nil {
			return
		}
		if again, err := ParseRange(r.String()); err != nil || again != r {
			t.Errorf("%q: %+v is written %s: %v", text, r, r, err)
		}
		if !regexp.MustCompile(`^` + rangeRE + `$`).MatchString(r.String()) {
			t.Errorf("%q is written %q", text, r)
		}
	})
}

// Whatever a name or an error says, what is written conforms, and is not too long.
func FuzzPlugin(f *testing.F) {
	f.Add("vm1", "open a|b: it's\n no", 5)
	f.Add("a=b'c", strings.Repeat("ü|", 700), 59)
	f.Add("\x00\xff", "", 0)
	f.Fuzz(func(t *testing.T, name, text string, n int) {
		if strings.Trim(plain(name), " ") == "" {
			return
		}
		facts := Facts{Findings: []Finding{{Warning, name, "x" + text}, {Unknown, "", "x" + text}}}
		rnd := rand.New(rand.NewPCG(uint64(n), 1))
		for i := range uint(n) % 60 {
			facts.Jobs = append(facts.Jobs, Job{Name: fmt.Sprintf("%s%d", name, i), Age: time.Duration(rnd.Int64N(int64(9 * day))), Limit: sla, Never: i%7 == 0, Distrusted: rnd.IntN(2), Note: text, Manual: []string{text}})
		}
		v := Judge(facts, DefaultThresholds)
		for _, out := range []string{v.Plugin(false, false), v.Plugin(true, true)} {
			level, _, figures, err := parse(out)
			if err != nil || level != v.Level.String() || figures["late"] != fmt.Sprint(v.Late) {
				t.Fatalf("%v\n%s", err, out)
			}
		}
		if text, err := json.Marshal(v); err != nil || !json.Valid(text) {
			t.Error(err)
		}
	})
}

func TestDetails(t *testing.T) {
	v := Judge(Facts{
		Jobs: []Job{{Name: "a", Age: hour, Limit: sla, Manual: []string{"manual:x|y", "manual:z"}}, {Name: "b", Age: 9 * day, Limit: sla, Note: "failed 3 times: no\nspace", Distrusted: 1, Revisions: 4},
			{Name: "c", Age: 9 * day, Limit: sla, Never: true}},
		Findings: []Finding{{OK, "old", "dead"}}, Reports: 1}, DefaultThresholds)
	_, details, _ := strings.Cut(v.Plugin(true, false), "\n")
	want := `CRITICAL: b: the newest good backup is 9d old; the SLA is 1d 12h; failed 3 times: no space
CRITICAL: c: there has been no good backup since it exists, 9d ago; the SLA is 1d 12h
WARNING: 1 report in quarantine: see ` + "`backy scrub reports list`" + `
WARNING: b: 1 revision of 4 distrusted
info: a: the newest good backup is 1h old; the SLA is 1d 12h
info: a: manual tags: manual:x¦y, manual:z
info: old: dead
`
	if details != want {
		t.Errorf("%s, want\n%s", details, want)
	}
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Status string
		Code   int
		Jobs   []struct{ Job, Status string }
	}
	if err := json.Unmarshal(text, &got); err != nil || got.Code != 2 || fmt.Sprint(got) != "{CRITICAL 2 [{a OK} {b CRITICAL} {c CRITICAL}]}" {
		t.Errorf("%v %v\n%s", got, err, text)
	}
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "0s", 999 * time.Millisecond: "0s", time.Second: "1s", 61 * time.Second: "1m 1s", hour: "1h", 36 * hour: "1d 12h", day + 5*time.Second: "1d",
		day + hour + time.Minute: "1d 1h", 400 * day: "400d"} {
		if got := span(d); got != want {
			t.Errorf("%s: %q, want %q", d, got, want)
		}
	}
}
