package otel

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nucleus-container/nucleus/internal/secret"
)

// Config says where to and how. FromEnv makes one.
type Config struct {
	Traces, Metrics signal
	Service         string
	Resource        []Attr
	Version         string        // of this program
	Interval        time.Duration // between reports
	Backoff         time.Duration // before the second attempt; doubled for each more
	Attempts        int
	Log             func(format string, args ...any) // what went wrong
}

// signal is where one kind of data goes. Empty: nowhere.
type signal struct {
	url     string
	headers map[string]secret.Text // they hold keys
	timeout time.Duration
	gzip    bool
	client  *http.Client
}

// FromEnv reads the variables of OpenTelemetry's specification
// (OTEL_EXPORTER_OTLP_ENDPOINT and its like).
func FromEnv(get func(string) string) (Config, error) {
	c := Config{Service: "nucleus", Interval: 5 * time.Second, Backoff: time.Second, Attempts: 5}
	var errs []error
	for _, s := range []struct {
		name, path string
		to         *signal
	}{{"TRACES", "/v1/traces", &c.Traces}, {"METRICS", "/v1/metrics", &c.Metrics}} {
		var err error
		*s.to, err = signalFrom(get, s.name, s.path)
		if err != nil && !slices.ContainsFunc(errs, func(e error) bool { return e.Error() == err.Error() }) { // most variables are for both
			errs = append(errs, err)
		}
	}
	resource, err := pairs(get("OTEL_RESOURCE_ATTRIBUTES"))
	if err != nil {
		errs = append(errs, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err))
	}
	for _, p := range resource {
		if p[0] == "service.name" {
			c.Service = p[1]
			continue
		}
		c.Resource = append(c.Resource, Attr{p[0], p[1]})
	}
	if name := get("OTEL_SERVICE_NAME"); name != "" {
		c.Service = name
	}
	if v := get("OTEL_METRIC_EXPORT_INTERVAL"); v != "" {
		if c.Interval, err = milliseconds(v); err != nil {
			errs = append(errs, fmt.Errorf("OTEL_METRIC_EXPORT_INTERVAL: %w", err))
		}
	}
	return c, errors.Join(errs...)
}

func signalFrom(get func(string) string, name, path string) (s signal, err error) {
	if get("OTEL_SDK_DISABLED") == "true" || get("OTEL_"+name+"_EXPORTER") == "none" {
		return s, nil
	}
	// The variable of the signal, else that of all.
	which := func(key string) (variable, value string) {
		if v := get("OTEL_EXPORTER_OTLP_" + name + "_" + key); v != "" {
			return "OTEL_EXPORTER_OTLP_" + name + "_" + key, v
		}
		return "OTEL_EXPORTER_OTLP_" + key, get("OTEL_EXPORTER_OTLP_" + key)
	}
	variable, v := which("ENDPOINT")
	if v == "" {
		v = "http://localhost:4318"
	}
	if !strings.HasPrefix(variable, "OTEL_EXPORTER_OTLP_"+name) {
		v = strings.TrimSuffix(v, "/") + path
	}
	u, err := url.Parse(v)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return s, fmt.Errorf("%s: it is not the URL of a collector such as http://localhost:4318", variable) // it may hold a password
	}
	s.url = u.String()
	if variable, v = which("PROTOCOL"); v != "" && v != "http/protobuf" {
		return s, fmt.Errorf("%s: only http/protobuf is spoken here, not %q", variable, v)
	}
	variable, v = which("HEADERS")
	headers, err := pairs(v)
	if err != nil {
		return s, fmt.Errorf("%s: it is not a list of KEY=VALUE separated by commas", variable) // it holds keys
	}
	s.headers = map[string]secret.Text{}
	for _, h := range headers {
		s.headers[h[0]] = secret.New(h[1])
	}
	s.timeout = 10 * time.Second
	if variable, v = which("TIMEOUT"); v != "" {
		if s.timeout, err = milliseconds(v); err != nil {
			return s, fmt.Errorf("%s: %w", variable, err)
		}
	}
	switch variable, v = which("COMPRESSION"); v {
	case "", "none":
	case "gzip":
		s.gzip = true
	default:
		return s, fmt.Errorf("%s: %q is not gzip or none", variable, v)
	}
	return s, s.connect(which)
}

// connect makes the client.
func (s *signal) connect(which func(string) (string, string)) error {
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConns: 2, IdleConnTimeout: time.Minute, TLSHandshakeTimeout: 10 * time.Second}
	if variable, file := which("CERTIFICATE"); file != "" {
		pem, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("%s: %w", variable, err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return fmt.Errorf("%s: there is no certificate in %s", variable, file)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	for _, key := range []string{"CLIENT_KEY", "CLIENT_CERTIFICATE"} {
		if variable, v := which(key); v != "" {
			return fmt.Errorf("%s: client certificates are not supported", variable)
		}
	}
	s.client = &http.Client{Transport: transport, Timeout: s.timeout,
		// Headers hold keys, and are for the collector that was named.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return nil
}

func milliseconds(v string) (time.Duration, error) {
	n, err := strconv.ParseUint(v, 10, 31)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is not a number of milliseconds", v)
	}
	return time.Duration(n) * time.Millisecond, nil
}

// pairs reads KEY=VALUE,KEY=VALUE with values as in URLs.
func pairs(v string) (out [][2]string, err error) {
	for part := range strings.SplitSeq(v, ",") {
		if strings.TrimSpace(part) == "" {
			continue
		}
		key, value, has := strings.Cut(part, "=")
		value, err := url.PathUnescape(strings.TrimSpace(value))
		if key = strings.TrimSpace(key); !has || key == "" || err != nil {
			return nil, errors.New("it is not a list of KEY=VALUE separated by commas")
		}
		out = append(out, [2]string{key, value})
	}
	return out, nil
}

// resource says who sends.
func (c Config) resource() (m message) {
	m.attrs(1, append([]Attr{{"service.name", c.Service}, {"telemetry.sdk.name", "nucleus-otel"}, {"telemetry.sdk.language", "go"}, {"telemetry.sdk.version", c.Version}}, c.Resource...))
	return m
}

func (c Config) scope() (m message) {
	m.text(1, "github.com/nucleus-container/nucleus")
	m.text(2, c.Version)
	return m
}
