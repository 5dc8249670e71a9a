// Verify an access token with go-oidc, as a resource server does, and print its user.
//
// Usage: verify ISSUER CLIENT_ID TOKEN
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
)

func main() {
	if err := verify(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func verify(issuer, clientID, token string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	provider, err := oidc.NewProvider(ctx, issuer)
	if err != nil {
		return err
	}
	verified, err := provider.Verifier(&oidc.Config{ClientID: clientID}).Verify(ctx, token)
	if err != nil {
		return fmt.Errorf("refused: %w", err)
	}
	fmt.Println(verified.Subject)
	return nil
}
