// raise_hand as a function over HTTP: ROLLCALL_FUNCTIONS_SECRET=whsec_... go run raise_hand.go
package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
)

type object map[string]any

func main() {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(os.Getenv("ROLLCALL_FUNCTIONS_SECRET"), "whsec_"))
	if err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mac := hmac.New(sha256.New, key)
		fmt.Fprintf(mac, "%s.%s.%s", r.Header.Get("webhook-id"), r.Header.Get("webhook-timestamp"), body)
		signature := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
		if !hmac.Equal([]byte(signature), []byte(r.Header.Get("webhook-signature"))) {
			w.WriteHeader(http.StatusUnauthorized)
			json.NewEncoder(w).Encode(object{"message": "not signed by the gateway"})
			return
		}
		var call struct{ Payload, Session object }
		json.Unmarshal(body, &call)
		raised := object{"by": call.Session["agent_id"], "hand": call.Payload["hand"]}
		publish := []object{{"to": "lesson", "entity_type": "hand", "operation": "raised", "body": raised}}
		json.NewEncoder(w).Encode(object{"data": raised, "publish": publish})
	})
	port := os.Getenv("PORT")
	if port == "" {
		port = "8000"
	}
	log.Fatal(http.ListenAndServe("127.0.0.1:"+port, nil))
}
