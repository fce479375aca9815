package secret_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/nucleus-container/nucleus/internal/secret"
)

func TestNothingPrintsIt(t *testing.T) {
	const value = "hunter2"
	s := secret.New(value)
	holder := struct {
		Public string
		Token  secret.Text
		hidden secret.Text
		All    map[string]secret.Text
		At     *secret.Text
	}{"x", s, s, map[string]secret.Text{"k": s}, &s}
	var out bytes.Buffer
	for _, v := range []any{s, &s, holder, &holder, []secret.Text{s}, errors.Join(fmt.Errorf("with %v", s))} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T", "%p"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(b)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("m", "v", v)
		slog.New(slog.NewTextHandler(&out, nil)).Info("m", "v", v)
	}
	for _, form := range []string{value, fmt.Sprintf("%x", value), fmt.Sprintf("%X", value)} {
		if strings.Contains(out.String(), form) {
			t.Errorf("it is printed: %s", out.String())
		}
	}
	if s.Reveal() != value || (secret.Text{}).Reveal() != "" {
		t.Error("it is not what was put in")
	}
	if n := strings.Count(out.String(), "(secret)"); n < 20 {
		t.Errorf("the word for it is printed %d times", n)
	}
}
