package config

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
)

// SpotCheck says how much of what a backup stored is compared with its source afterwards.
type SpotCheck struct {
	Percent float64       // of the blocks that it changed, 0 to 100; 0 is none of them, any more is at least one
	Time    time.Duration // nothing more is begun after it; 0 is no limit
}

// DefaultSpotCheck is what is checked where a job's configuration does not say.
var DefaultSpotCheck = SpotCheck{Percent: 1, Time: 5 * time.Minute}

func parseSpot(node ast.Node) (SpotCheck, error) {
	s := DefaultSpotCheck
	if node == nil || node.Type() == ast.NullType {
		return s, nil
	}
	var raw struct {
		Share ast.Node `yaml:"share"`
		Time  ast.Node `yaml:"time"`
	}
	if err := yaml.NodeToValue(node, &raw, yaml.Strict()); err != nil {
		return s, err
	}
	if raw.Share != nil {
		text, _ := scalar(raw.Share)
		number, ok := strings.CutSuffix(text, "%")
		n, err := strconv.ParseFloat(number, 64)
		if err != nil || !ok || !(n >= 0 && n <= 100) {
			return s, at(raw.Share, errors.New("share is a percentage, as in 1%; 0% is no check"))
		}
		s.Percent = n
	}
	if raw.Time != nil {
		var err error
		if s.Time, err = parseDuration(raw.Time); err != nil {
			return s, err
		}
	}
	return s, nil
}
