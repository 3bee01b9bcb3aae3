package app

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/urfave/cli/v2"
)

// sortedArgs are arguments with the flags apart from the rest.
type sortedArgs struct {
	flags []string // --name or --name=value, with the flag's first name
	args  []string
	at    []int // where in the input args were
}

func (s sortedArgs) has(name string) bool {
	return slices.Contains(s.flags, "--"+name) || slices.Contains(s.flags, "--"+name+"=true")
}

// sortArgs takes arguments apart. It knows --name value, --name=value, -n value, -nvalue, and -abc for -a -b -c.
func sortArgs(argv []string, known []cli.Flag) (sortedArgs, error) {
	var s sortedArgs
	for i := 0; i < len(argv); i++ {
		arg := argv[i]
		if arg == "--" {
			for i++; i < len(argv); i++ {
				s.args, s.at = append(s.args, argv[i]), append(s.at, i)
			}
			break
		}
		if !isFlag(arg) {
			s.args, s.at = append(s.args, arg), append(s.at, i)
			continue
		}
		for arg != "" {
			f, value, rest := cut(arg, known)
			switch {
			case f == nil:
				return s, fmt.Errorf("flag %s is not known", arg)
			case takesValue(f) && value == nil && i+1 == len(argv):
				return s, fmt.Errorf("flag %s needs a value", arg)
			case takesValue(f) && value == nil:
				i++
				value = &argv[i]
			}
			name := "--" + f.Names()[0]
			if value != nil {
				name += "=" + *value
			}
			s.flags = append(s.flags, name)
			arg = rest
		}
	}
	return s, nil
}

// scan finds the arguments, and the place of the first (-1 if there is none).
func scan(argv []string, known []cli.Flag) (args []string, first int, err error) {
	s, err := sortArgs(argv, known)
	if err != nil || len(s.args) == 0 {
		return nil, -1, err
	}
	return s.args, s.at[0], nil
}

// cut takes the first flag off arg. value is nil where arg has none; rest is what more arg has, a flag again.
func cut(arg string, known []cli.Flag) (f cli.Flag, value *string, rest string) {
	f = find(known, arg)
	name, v, given := strings.Cut(arg, "=")
	if strings.HasPrefix(arg, "--") || utf8.RuneCountInString(name) == 2 {
		if given {
			value = &v
		}
		return f, value, ""
	}
	if f == nil { // several letters after one dash
		return nil, nil, ""
	}
	_, size := utf8.DecodeRuneInString(arg[1:])
	more := arg[1+size:]
	if takesValue(f) {
		return f, &more, ""
	}
	return f, nil, "-" + more
}

// find is the flag that arg begins with, or nil.
func find(known []cli.Flag, arg string) cli.Flag {
	if !isFlag(arg) {
		return nil
	}
	name, long := strings.CutPrefix(arg, "--")
	if long {
		name, _, _ = strings.Cut(name, "=")
		if utf8.RuneCountInString(name) < 2 {
			return nil
		}
	} else {
		_, size := utf8.DecodeRuneInString(arg[1:])
		name = arg[1 : 1+size]
	}
	for _, f := range known {
		if slices.Contains(f.Names(), name) {
			return f
		}
	}
	return nil
}

// isFlag says whether arg is one or several flags: "-" is an argument, it stands for standard input or output.
func isFlag(arg string) bool { return len(arg) > 1 && arg[0] == '-' }

func takesValue(f cli.Flag) bool {
	doc, ok := f.(cli.DocGenerationFlag)
	return ok && doc.TakesValue()
}
