package config

import (
	"strconv"
	"strings"
	"time"
)

// SpotCheck says how much of what a backup changed is compared with its source afterwards.
type SpotCheck struct {
	Percent float64       // of the blocks that it changed, 0 to 100; 0 is none of them, any more is at least one
	Time    time.Duration // nothing more is begun after it; 0 is no limit
}

// DefaultSpotCheck is what is checked where a job's configuration does not say.
var DefaultSpotCheck = SpotCheck{Percent: 1, Time: 5 * time.Minute}

func (d *document) spot(to *SpotCheck) func(entry) {
	return func(e entry) {
		d.read(e, keys{"share": d.share(&to.Percent), "time": d.duration(&to.Time, 0)})
	}
}

func (d *document) share(to *float64) func(entry) {
	return func(e entry) {
		text, _ := scalar(e.value)
		number, ok := strings.CutSuffix(text, "%")
		n, err := strconv.ParseFloat(number, 64)
		if err != nil || !ok || !(n >= 0 && n <= 100) {
			d.mistake(e.value, "share is a percentage, as in 1%%; 0%% is no check")
			return
		}
		*to = n
	}
}
