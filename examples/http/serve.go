package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/execguard/execguard/contextx"
)

// serve serves h on a loopback port, where url says, until stop is called.
func serve(ctx context.Context, h http.Handler) (url string, stop func() error, err error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	return "http://" + listener.Addr().String(), func() error {
		finish, cancel := contextx.Cleanup(ctx, time.Second)
		defer cancel()
		err := server.Shutdown(finish) // every stream is over by now, or ends with ctx
		if err != nil {
			err = errors.Join(err, server.Close())
		}
		if ended := <-served; !errors.Is(ended, http.ErrServerClosed) {
			err = errors.Join(err, ended)
		}
		return err
	}, nil
}
