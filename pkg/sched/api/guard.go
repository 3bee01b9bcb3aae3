package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
)

// guard lets those in who have a token, and keeps the log.
type guard struct {
	tokens atomic.Pointer[[]token]
	log    *slog.Logger
	now    func() time.Time

	mu      sync.Mutex
	said    time.Time // when it was last said that someone was turned away
	refused int       // since then
}

// token is one that is let in. Hashes are compared, so that all are of one length.
type token struct {
	hash   [sha256.Size]byte
	client string
}

// accept replaces the tokens, as in the configuration: the client's name for each. An empty one lets nobody in.
func (g *guard) accept(names map[string]string) {
	list := []token{}
	for text, client := range names {
		if text != "" {
			list = append(list, token{sha256.Sum256([]byte(text)), client})
		}
	}
	g.tokens.Store(&list)
}

// client is whose token a request shows. It takes the same time whichever token is right, and if none is.
func (g *guard) client(r *http.Request) (name string, ok bool) {
	scheme, text, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	hash := sha256.Sum256([]byte(strings.TrimSpace(text)))
	bearer := strings.EqualFold(scheme, "Bearer")
	list := g.tokens.Load()
	if list == nil {
		return "", false
	}
	for _, t := range *list {
		if subtle.ConstantTimeCompare(hash[:], t.hash[:]) == 1 {
			name, ok = t.client, bearer
		}
	}
	return name, ok
}

var errToken = errors.New("a token is needed that the daemon's configuration has below api.tokens, as in: Authorization: Bearer TOKEN")

// wrap is next, for those who have a token; health alone is for all.
func (g *guard) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from, known := g.client(r)
		if !known && r.URL.Path != healthPath {
			g.refuse(r)
			w.Header().Set("WWW-Authenticate", "Bearer")
			w.Header().Set("Connection", "close") // the next in line has a better one, perhaps
			fail(w, http.StatusUnauthorized, errToken)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		begin, noted := g.now(), &noting{ResponseWriter: w, code: http.StatusOK}
		next.ServeHTTP(noted, r)
		g.log.Debug("api", "client", from, "method", r.Method, "path", oneLine(r.URL.Path), "code", noted.code,
			"took", g.now().Sub(begin), "taskid", cut(oneLine(r.Header.Get("taskid")), 64))
	})
}

// quiet is how long the log says nothing of those who were turned away, after it did.
const quiet = time.Minute

// refuse notes that someone was turned away. A thousand of them are no thousand lines.
func (g *guard) refuse(r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.refused++
	now := g.now()
	if since := now.Sub(g.said); !g.said.IsZero() && since >= 0 && since < quiet {
		return
	}
	g.log.Warn("api: a request without a right token was refused", "from", r.RemoteAddr, "path", cut(oneLine(r.URL.Path), 64), "refused", g.refused)
	g.said, g.refused = now, 0
}

// noting remembers the code of an answer.
type noting struct {
	http.ResponseWriter
	code int
}

func (n *noting) WriteHeader(code int) {
	n.code = code
	n.ResponseWriter.WriteHeader(code)
}

// oneLine is text from elsewhere, fit for a line of a log.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
}

func cut(text string, most int) string {
	if len(text) > most {
		return text[:most] + "..."
	}
	return text
}
