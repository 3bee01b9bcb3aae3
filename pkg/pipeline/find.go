package pipeline

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Find finds a command of ours: where its variable (of backy-read, BACKY_READ) says, beside this program, or in PATH.
func Find(command string) (string, error) {
	variable := strings.ToUpper(strings.ReplaceAll(command, "-", "_"))
	if name := os.Getenv(variable); name != "" {
		path, err := exec.LookPath(name)
		if err != nil {
			return "", fmt.Errorf("%s: %w", variable, err)
		}
		return path, nil
	}
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	beside := filepath.Dir(self)
	if path, err := exec.LookPath(filepath.Join(beside, command)); err == nil {
		return path, nil
	}
	path, err := exec.LookPath(command)
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, exec.ErrDot) {
		return "", fmt.Errorf("%s is not installed: it is neither in %s nor in PATH; %s can tell where it is", command, beside, variable)
	}
	return path, err
}
