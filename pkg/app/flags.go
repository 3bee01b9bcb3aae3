package app

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// commonFlags are those that every command has.
func commonFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "backupdir", Aliases: []string{"b"}, Usage: "the job's `DIR`, somewhere below a repository's base directory (default: the current directory)"},
		&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "say more"},
		&cli.StringFlag{Name: "logfile", Aliases: []string{"l"}, Usage: "append everything that is said, and more, to `FILE`"},
		&cli.StringFlag{Name: "taskid", Usage: "an `ID` for the log and the events, to tell what belongs together"},
		&cli.StringFlag{Name: "events", Usage: "write events as JSON, one a line, to a `FILE`, or to a descriptor as in fd:3"},
		&cli.BoolFlag{Name: "version", Aliases: []string{"V"}, Usage: "print the version"},
		&cli.BoolFlag{Name: "help", Aliases: []string{"h"}, Usage: "print this"},
	}
}

// CommonArgs are the flags that hand this command's -v, -l and --taskid on to another command of ours.
func (c *Context) CommonArgs() []string {
	args := []string{"--taskid", c.Task}
	if c.Verbose {
		args = append(args, "-v")
	}
	if c.Logfile != "" {
		args = append(args, "-l", c.Logfile)
	}
	return args
}

// line is an understood command line.
type line struct {
	command       *Command
	name          string   // with the verb
	argv          []string // flags as --name=value, then "--", then the arguments
	help, version bool
}

// parse finds the verb and sorts flags before arguments, because the library stops at the first argument, while people
// add flags at the end. After "--" all is an argument.
func (c *Command) parse(argv []string) (line, error) {
	l := line{command: c, name: c.Name}
	known := append(commonFlags(), c.Flags...)
	if len(c.Verbs) > 0 {
		everything := slices.Clone(known)
		for _, v := range c.Verbs {
			everything = append(everything, v.Flags...)
		}
		words, at, err := scan(argv, everything)
		if err != nil {
			return l, Usage(err)
		}
		help := at >= 0 && argv[at] == "help"
		if help {
			argv, words = slices.Delete(slices.Clone(argv), at, at+1), words[1:]
			_, at, _ = scan(argv, everything)
		}
		if at >= 0 {
			i := slices.IndexFunc(c.Verbs, func(v Command) bool { return v.Name == argv[at] })
			switch {
			case i >= 0:
				l.command, l.name = &c.Verbs[i], c.Name+" "+argv[at]
				known = append(commonFlags(), l.command.Flags...)
				argv = slices.Delete(slices.Clone(argv), at, at+1)
			case c.Action == nil || c.Args == "":
				return l, Usagef("%q is no verb of %s; they are: %s", argv[at], c.Name, c.verbs())
			}
		}
		l.help = help
	}
	sorted, err := sortArgs(argv, known)
	if err != nil {
		return l, Usagef("%s: %w", l.name, err)
	}
	l.argv = sorted.flags
	l.argv = append(append(l.argv, "--"), sorted.args...)
	l.help = l.help || sorted.has("help")
	l.version = sorted.has("version")
	if l.help || l.version {
		return l, nil
	}
	if l.command.Action == nil {
		return l, Usagef("say what to do: %s VERB; the verbs are: %s", l.name, l.command.verbs())
	}
	return l, Usage(l.command.checkArgs(l.name, sorted.args))
}

func (c *Command) verbs() string {
	var names []string
	for _, v := range c.Verbs {
		names = append(names, v.Name)
	}
	return strings.Join(names, ", ")
}

// checkArgs compares the arguments with Args.
func (c *Command) checkArgs(name string, args []string) error {
	words := strings.Fields(c.Args)
	least, most := 0, len(words)
	for i, w := range words {
		optional := strings.HasPrefix(w, "[")
		if !optional {
			least++
		}
		if strings.Contains(w, "...") {
			most = len(args)
		}
		if !optional && i >= len(args) {
			return fmt.Errorf("%s is missing: %s %s", strings.Trim(w, "."), name, c.Args)
		}
	}
	if len(args) > most {
		return fmt.Errorf("unexpected argument %q: %s", args[most], strings.TrimSpace(name+" "+c.Args))
	}
	return nil
}

// Verb finds the verb in arguments (without the program's name) of which only the common flags are known: the first that
// is no flag. rest is what is left without it. "" where there is none.
func Verb(argv []string) (verb string, rest []string) {
	known := commonFlags()
	for i := 0; i < len(argv) && argv[i] != "--"; i++ {
		if !isFlag(argv[i]) {
			return argv[i], slices.Delete(slices.Clone(argv), i, i+1)
		}
		for arg := argv[i]; arg != ""; {
			f, value, rest := cut(arg, known)
			if f != nil && takesValue(f) && value == nil {
				i++
			}
			arg = rest
		}
	}
	return "", argv
}
