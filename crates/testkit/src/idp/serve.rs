//! The provider's endpoints.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Body,
    extract::{Query, Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    Attack, CLIENT_ID, CLIENT_SECRET, Grant, Person, Shared,
    keys::{Signer, tamper, unsigned},
};

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/.well-known/openid-configuration", get(discovery))
        .route("/authorize", get(authorise))
        .route("/login/oauth/authorize", get(authorise))
        .route("/token", post(token))
        .route("/login/oauth/access_token", post(github_token))
        .route("/keys", get(keys))
        .route("/userinfo", get(user_info))
        .route("/user", get(github_user))
        .route("/user/emails", get(github_emails))
        .route("/", get(|| async { "a sign-in provider for tests" }))
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), count))
        .with_state(shared)
}

async fn count(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let down = {
        let mut state = shared.state.lock().unwrap();
        *state.asked.entry(request.uri().path().to_owned()).or_default() += 1;
        state.down
    };
    if down { StatusCode::SERVICE_UNAVAILABLE.into_response() } else { next.run(request).await }
}

async fn discovery(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let url = shared.url();
    Json(json!({
        "issuer": url,
        "authorization_endpoint": format!("{url}/authorize"),
        "token_endpoint": format!("{url}/token"),
        "userinfo_endpoint": format!("{url}/userinfo"),
        "jwks_uri": format!("{url}/keys"),
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256", "RS256"],
    }))
}

async fn keys(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let state = shared.state.lock().unwrap();
    Json(json!({"keys": [state.signers.last().map(Signer::jwk)]}))
}

#[derive(Deserialize)]
struct Ask {
    response_type: String,
    client_id: String,
    redirect_uri: String,
    state: String,
    scope: String,
    code_challenge: String,
    code_challenge_method: String,
    nonce: Option<String>,
}

fn random() -> String {
    use ring::rand::SecureRandom;
    let mut bytes = [0; 24];
    ring::rand::SystemRandom::new().fill(&mut bytes).unwrap();
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Whoever comes is signed in already, and consents.
async fn authorise(State(shared): State<Arc<Shared>>, Query(ask): Query<Ask>) -> Response {
    let well = ask.response_type == "code"
        && ask.client_id == CLIENT_ID
        && ask.code_challenge_method == "S256"
        && ask.state.len() >= 32
        && !ask.scope.is_empty();
    if !well {
        return (StatusCode::BAD_REQUEST, "not a good authorisation request").into_response();
    }
    let mut state = shared.state.lock().unwrap();
    let mut answer = vec![("state", ask.state)];
    match state.person.clone() {
        Some(person) => {
            let code = format!("code-{}", random());
            let grant = Grant {
                client_id: ask.client_id,
                redirect_uri: ask.redirect_uri.clone(),
                nonce: ask.nonce,
                challenge: ask.code_challenge,
                person,
            };
            state.codes.insert(code.clone(), grant);
            state.secrets.push(code.clone());
            answer.push(("code", code));
        }
        None => answer.push(("error", "access_denied".to_owned())),
    }
    if let Some(issuer) = state.announced_issuer.clone() {
        answer.push(("iss", issuer));
    }
    let query = serde_urlencoded::to_string(answer).unwrap();
    Redirect::to(&format!("{}?{query}", ask.redirect_uri)).into_response()
}

#[derive(Deserialize)]
struct Trade {
    grant_type: String,
    code: String,
    redirect_uri: String,
    code_verifier: String,
}

/// The grant behind a code, which is used up, if the client is who it was given to.
fn trade(shared: &Shared, headers: &HeaderMap, trade: &Trade) -> Result<Grant, &'static str> {
    let basic = STANDARD.encode(format!("{CLIENT_ID}:{CLIENT_SECRET}"));
    if headers.get(header::AUTHORIZATION).is_none_or(|value| *value != *format!("Basic {basic}")) {
        return Err("invalid_client");
    }
    let mut state = shared.state.lock().unwrap();
    let grant = state.codes.remove(&trade.code).ok_or("invalid_grant")?;
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(trade.code_verifier.as_bytes()));
    let well = trade.grant_type == "authorization_code"
        && trade.redirect_uri == grant.redirect_uri
        && grant.client_id == CLIENT_ID
        && challenge == grant.challenge;
    if well { Ok(grant) } else { Err("invalid_grant") }
}

fn access_token(shared: &Shared, person: &Person) -> String {
    let token = format!("access-{}", random());
    let mut state = shared.state.lock().unwrap();
    state.tokens.insert(token.clone(), person.clone());
    state.secrets.push(token.clone());
    token
}

async fn token(State(shared): State<Arc<Shared>>, headers: HeaderMap, form: String) -> Response {
    let Ok(form) = serde_urlencoded::from_str(&form) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let grant = match trade(&shared, &headers, &form) {
        Ok(grant) => grant,
        Err(error) => {
            return (StatusCode::BAD_REQUEST, Json(json!({"error": error}))).into_response();
        }
    };
    let attack = shared.state.lock().unwrap().attack;
    match attack {
        Some(Attack::Flood) => {
            let chunk = || Ok::<_, std::io::Error>(vec![b' '; 64 * 1024]);
            let endless = futures::stream::repeat_with(chunk);
            return Body::from_stream(endless).into_response();
        }
        Some(Attack::Redirect) => {
            return Redirect::temporary(&format!("{}/keys", shared.url())).into_response();
        }
        _ => {}
    }
    let access = access_token(&shared, &grant.person);
    let mut answer = json!({"access_token": access, "token_type": "Bearer", "expires_in": 3600});
    if attack != Some(Attack::NoIdToken) {
        let id_token = id_token(&shared, &grant, attack);
        shared.state.lock().unwrap().secrets.push(id_token.clone());
        answer["id_token"] = id_token.into();
    }
    Json(answer).into_response()
}

fn id_token(shared: &Shared, grant: &Grant, attack: Option<Attack>) -> String {
    let (person, now) = (&grant.person, shared.now().timestamp());
    let mut claims = json!({
        "iss": shared.url(), "aud": CLIENT_ID, "sub": person.id,
        "iat": now, "exp": now + 3600, "nonce": grant.nonce, "name": person.name,
        "email": person.email, "email_verified": person.email_verified,
        "hd": person.hosted_domain,
    });
    let state = shared.state.lock().unwrap();
    let signer = state.signers.last().unwrap();
    match attack {
        Some(Attack::WrongNonce) => claims["nonce"] = "bm90IHRoZSBub25jZQ".into(),
        Some(Attack::NoNonce) => claims["nonce"] = Value::Null,
        Some(Attack::WrongAudience) => claims["aud"] = "another-client".into(),
        Some(Attack::WrongIssuer) => claims["iss"] = "https://evil.example".into(),
        Some(Attack::Expired) => claims["exp"] = (now - 1).into(),
        Some(Attack::ForeignUserInfo) => claims["email"] = Value::Null,
        _ => {}
    }
    if let Value::Object(members) = &mut claims {
        members.retain(|_, value| !value.is_null());
    }
    match attack {
        Some(Attack::AlgNone) => unsigned(&claims),
        Some(Attack::HmacWithPublicKey) => signer.hmac(&signer.public_key(), &claims),
        Some(Attack::HmacWithClientSecret) => signer.hmac(CLIENT_SECRET.as_bytes(), &claims),
        Some(Attack::WrongKey) => Signer::new(&signer.id).sign(&signer.id, &claims),
        Some(Attack::UnknownKey) => Signer::new("nowhere").sign("nowhere", &claims),
        Some(Attack::Tampered) => tamper(&signer.sign(&signer.id, &claims)),
        _ => signer.sign(&signer.id, &claims),
    }
}

fn bearer(shared: &Shared, headers: &HeaderMap) -> Option<Person> {
    let token = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?;
    shared.state.lock().unwrap().tokens.get(token).cloned()
}

async fn user_info(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let Some(person) = bearer(&shared, &headers) else {
        return StatusCode::UNAUTHORIZED.into_response();
    };
    let foreign = shared.state.lock().unwrap().attack == Some(Attack::ForeignUserInfo);
    let subject = if foreign { "somebody else" } else { &person.id };
    Json(json!({"sub": subject, "email": person.email, "email_verified": person.email_verified}))
        .into_response()
}

/// GitHub refuses with a 200.
async fn github_token(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    form: String,
) -> Json<Value> {
    let form = serde_urlencoded::from_str(&form).expect("a form");
    Json(match trade(&shared, &headers, &form) {
        Ok(grant) => {
            let token = access_token(&shared, &grant.person);
            json!({"access_token": token, "token_type": "bearer", "scope": "read:user,user:email"})
        }
        Err(_) => {
            json!({"error": "bad_verification_code", "error_description": "The code passed is incorrect or expired."})
        }
    })
}

async fn github_user(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let Some(person) = bearer(&shared, &headers) else {
        return StatusCode::UNAUTHORIZED.into_response();
    };
    let id: u64 = person.id.parse().expect("GitHub's ids are numbers");
    // What stands in the profile need not be verified.
    Json(json!({"id": id, "login": person.login, "name": person.name, "email": "profile@example.net"}))
        .into_response()
}

async fn github_emails(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let Some(person) = bearer(&shared, &headers) else {
        return StatusCode::UNAUTHORIZED.into_response();
    };
    let login = &person.login;
    let mut emails = vec![
        json!({"email": "other@example.org", "primary": false, "verified": true}),
        json!({"email": format!("{login}@users.noreply.github.com"), "primary": false, "verified": true}),
    ];
    if let Some(email) = &person.email {
        emails.push(json!({"email": email, "primary": true, "verified": person.email_verified}));
    }
    Json(emails).into_response()
}
