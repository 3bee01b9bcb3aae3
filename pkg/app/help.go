package app

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"strings"
	"unicode/utf8"

	"github.com/urfave/cli/v2"
)

const helpColumns = 100

// help prints what a person needs to use the command, without any other document.
func help(w io.Writer, c *Command, name string) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n\n", name, c.Usage)
	uses := []string{strings.TrimSpace(name + " [FLAGS] " + c.Args)}
	if c.Action == nil {
		uses = nil
	}
	if len(c.Verbs) > 0 {
		uses = append(uses, name+" VERB [FLAGS] ...")
	}
	fmt.Fprintf(&b, "Usage: %s\n", strings.Join(uses, "\n       "))
	if c.Help != "" {
		fmt.Fprintf(&b, "\n%s\n", strings.TrimSpace(c.Help))
	}
	if len(c.Verbs) > 0 {
		var rows [][2]string
		for _, v := range c.Verbs {
			rows = append(rows, [2]string{strings.TrimSpace(v.Name + " " + v.Args), v.Usage})
		}
		section(&b, "Verbs (each has its own --help)", rows)
	}
	section(&b, "Flags", flagRows(c.Flags))
	section(&b, "Common flags", flagRows(commonFlags()))
	if c.Examples != "" {
		fmt.Fprintf(&b, "\nExamples:\n")
		for line := range strings.Lines(strings.TrimSpace(c.Examples)) {
			fmt.Fprintf(&b, "  %s\n", strings.TrimSpace(line))
		}
	}
	codes := exitCodesHelp
	if c.Plugin {
		codes = pluginCodesHelp
	}
	fmt.Fprintf(&b, "\nExit codes: %s\n", strings.ReplaceAll(codes, "\n", "\n            "))
	_, _ = io.WriteString(w, b.String()) // nobody to tell
}

// section writes two columns, the second one wrapped.
func section(b *strings.Builder, title string, rows [][2]string) {
	if len(rows) == 0 {
		return
	}
	fmt.Fprintf(b, "\n%s:\n", title)
	left := 0
	for _, r := range rows {
		if n := utf8.RuneCountInString(r[0]); n <= 28 {
			left = max(left, n)
		}
	}
	indent := "\n" + strings.Repeat(" ", left+4)
	for _, r := range rows {
		text := strings.Join(wrap(r[1], helpColumns-left-4), indent)
		if utf8.RuneCountInString(r[0]) > left {
			text = strings.TrimPrefix(indent, "") + text
			fmt.Fprintf(b, "  %s%s\n", r[0], text)
			continue
		}
		fmt.Fprintf(b, "  %-*s  %s\n", left, r[0], text)
	}
}

func wrap(text string, columns int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > columns {
			lines, line = append(lines, line), ""
		}
		line = strings.TrimPrefix(line+" "+word, " ")
	}
	return append(lines, line)
}

func flagRows(flags []cli.Flag) [][2]string {
	var rows [][2]string
	for _, f := range flags {
		doc, ok := f.(cli.DocGenerationFlag)
		if hidden, is := f.(cli.VisibleFlag); !ok || is && !hidden.IsVisible() {
			continue
		}
		var names []string
		for _, n := range f.Names() {
			if len(n) == 1 {
				names = append([]string{"-" + n}, names...)
			} else {
				names = append(names, "--"+n)
			}
		}
		value, usage := unquote(doc.GetUsage())
		left := strings.Join(names, ", ")
		if !strings.HasPrefix(left, "-"+names[0][1:2]+",") && strings.HasPrefix(names[0], "--") {
			left = "    " + left // below the long names of those that have a short one
		}
		if doc.TakesValue() {
			if value == "" {
				value = "VALUE"
			}
			left += " " + value
		}
		if def := strings.Trim(doc.GetDefaultText(), `"`); doc.TakesValue() && def != "" && def != "0" && !strings.Contains(usage, "(default") {
			usage += " (default: " + def + ")"
		}
		rows = append(rows, [2]string{left, usage})
	}
	return rows
}

// unquote takes the name of a flag's value from between back quotes.
func unquote(usage string) (value, text string) {
	before, rest, found := strings.Cut(usage, "`")
	value, after, closed := strings.Cut(rest, "`")
	if !found || !closed {
		return "", usage
	}
	return value, before + value + after
}

// buildVersion is set by a release: -ldflags "-X backy/pkg/app.buildVersion=1.2.3".
var buildVersion string

// version is the version of the program, as far as its build knows it.
func version() string {
	if buildVersion != "" {
		return buildVersion
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value[:min(12, len(s.Value))]
		}
	}
	return "devel"
}

func printVersion(w io.Writer, name string) {
	_, _ = fmt.Fprintf(w, "%s %s (%s, %s/%s)\n", name, version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
