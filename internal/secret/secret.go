// Package secret holds text that must not be printed. Whatever prints, logs or
// encodes a [Text], or a struct that holds one, gets "(secret)".
//
//	token := secret.New(os.Getenv("TOKEN"))
//	fmt.Printf("%v %+v %q\n", token, token, token) // (secret) (secret) "(secret)"
//	req.Header.Set("Authorization", token.Reveal())
//
// It is no protection against who can read this program's memory.
package secret

import (
	"fmt"
	"io"
	"log/slog"
)

// hidden is what is printed.
const hidden = "(secret)"

// Text is a secret. The zero value is an empty one.
type Text struct{ reveal func() string }

// New makes a secret of a text.
func New(s string) Text { return Text{func() string { return s }} }

// Reveal is the text: for the call that needs it, and nothing else.
func (t Text) Reveal() string {
	if t.reveal == nil {
		return ""
	}
	return t.reveal()
}

// String is not the text.
func (Text) String() string { return hidden }

// Format is not the text either, whatever the verb: %#v and %x too.
func (Text) Format(s fmt.State, verb rune) {
	if verb == 'q' {
		_, _ = io.WriteString(s, `"`+hidden+`"`) // fmt ignores it as well
		return
	}
	_, _ = io.WriteString(s, hidden) // as above
}

// MarshalText is not the text either: encoding/json and others use it.
func (Text) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// LogValue is not the text either.
func (Text) LogValue() slog.Value { return slog.StringValue(hidden) }
