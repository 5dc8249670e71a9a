nest={{ base_url }} email=ann@example.com state=$(od -An -N8 -tx8 /dev/urandom | tr -d ' ') &&
curl -fsS $nest/1/2021-10-06/send_magic_link -d '{
  "client_id": "{{ client_id }}",
  "redirect_uri": "'$nest'/dev/callback",
  "state": "'$state'",
  "code_challenge_method": "S256",
  "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
  "identifier_type": "email",
  "identifier_value": "'$email'",
  "device": {"platform": "linux", "fingerprint": "terminal"}
}' &&
code=$(curl -fsS "$nest/dev/inbox.json?to=$email&search=$state&wait=10" | grep -o 'code=[A-Za-z0-9_.]*' | head -n 1 | cut -d = -f 2) &&
login=$(curl -fsS $nest/1/2021-10-06/authenticate_user -d '{
  "client_id": "{{ client_id }}",
  "grant_type": "authorization_code",
  "redirect_uri": "'$nest'/dev/callback",
  "code": "'$code'",
  "code_verifier": "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
}') && echo "$login" &&
token=$(echo "$login" | sed 's/.*"access_token":"\([^"]*\)".*/\1/') user=$(echo "$login" | sed 's/.*"user_id":"\([^"]*\)".*/\1/') &&
curl -fsS $nest/1/2021-10-06/get_user -H "authorization: bearer $token" -d '{"user_id": "'$user'"}' && echo
