package app

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// The exit codes of all commands.
const (
	codeDone        = 0
	codeFailed      = 1
	codeUsage       = 2
	codeDamaged     = 3
	codeAgain       = 75 // EX_TEMPFAIL in sysexits(3)
	codeInterrupted = 130
)

const pluginCodesHelp = "0 OK; 1 WARNING; 2 CRITICAL; 3 UNKNOWN, wrong usage too."

const exitCodesHelp = "0 done; 1 failed; 2 wrong usage; 3 done, but data is damaged (listed);\n75 nothing is wrong, run it again; 130 interrupted."

// ExitCode is the one place where exit codes are decided:
//
//	0    nil: done, though warnings may have been said
//	1    any other error
//	2    wrong usage: Usage, Usagef
//	3    done, but data is damaged: Damaged
//	75   nothing is wrong, run it again
//	130  interrupted
//	0-3  a Verdict
//
// The outermost error in the chain with a method ExitCode() int that is one of these decides, which is how a package
// that does not know this one gives its code. An *exec.ExitError does not count: the code of some other program means
// something else.
func ExitCode(err error) int {
	var coded interface{ ExitCode() int }
	if v := Verdict(0); errors.As(err, &v) {
		return int(v)
	}
	if err == nil {
		return codeDone
	}
	if !errors.As(err, &coded) {
		return codeFailed
	}
	if _, foreign := coded.(*exec.ExitError); foreign {
		return codeFailed
	}
	switch code := coded.ExitCode(); code {
	case codeUsage, codeDamaged, codeAgain, codeInterrupted:
		return code
	default:
		return codeFailed
	}
}

// coded is an error with an exit code.
type coded struct {
	error
	code int
}

func (e *coded) Unwrap() error { return e.error }
func (e *coded) ExitCode() int { return e.code }

// Usage marks err as a mistake in how the command was called: exit code 2, and a hint at --help. nil stays nil.
func Usage(err error) error {
	if err == nil {
		return nil
	}
	return &coded{err, codeUsage}
}

// Usagef is Usage of fmt.Errorf.
func Usagef(format string, args ...any) error { return Usage(fmt.Errorf(format, args...)) }

// Damaged says that the work was done, but data is damaged, which has been listed: exit code 3.
func Damaged(format string, args ...any) error {
	return &coded{fmt.Errorf(format, args...), codeDamaged}
}

// Verdict is what a plugin of a monitoring system has come to, and has written to standard output, so that nothing more is
// said: an exit code, 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN. An Action returns it as its error, also if it is 0.
type Verdict int

// codeUnknown is the Verdict where there is none.
const codeUnknown = Verdict(3)

func (v Verdict) Error() string { return fmt.Sprintf("verdict %d", int(v)) }

// unknown says, as a plugin does, why there is no verdict: in one line without a bar, which would begin figures.
func unknown(w io.Writer, err error) int {
	line := strings.Join(strings.Fields(strings.ReplaceAll(err.Error(), "|", "¦")), " ")
	_, _ = fmt.Fprintln(w, "UNKNOWN: "+line) // nobody else to tell
	return int(codeUnknown)
}

// Interrupted is the cause of the cancelled context when a signal ended the work: exit code 130.
type Interrupted struct{ Signal os.Signal }

func (e *Interrupted) Error() string { return fmt.Sprintf("stopped by signal: %v", e.Signal) }

// ExitCode is 130, for any signal.
func (*Interrupted) ExitCode() int { return codeInterrupted }
