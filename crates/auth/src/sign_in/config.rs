//! Settings of signing in: the providers, and who may have an account.

use std::time::Duration;

use loom_core::config::Env;
use reqwest::Url;

use super::oauth::Registration;

#[derive(Clone, Debug, Default)]
pub struct SignInConfig {
    pub(crate) github: Option<GitHubConfig>,
    pub(crate) google: Option<OidcConfig>,
    pub(crate) oidc: Option<OidcConfig>,
    pub(crate) sign_up: SignUp,
    pub(crate) session_cleanup: Duration,
    pub(crate) state_cleanup: Duration,
}

#[derive(Clone, Debug)]
pub(crate) struct GitHubConfig {
    pub(crate) registration: Registration,
    /// Where people sign in; without a slash at its end.
    pub(crate) base_url: String,
    pub(crate) api_url: String,
}

#[derive(Clone, Debug)]
pub(crate) struct OidcConfig {
    pub(crate) provider: &'static str,
    /// On the button.
    pub(crate) name: String,
    pub(crate) registration: Registration,
    pub(crate) issuer: String,
    /// Only accounts of these Google organisations; empty: all.
    pub(crate) hosted_domains: Vec<String>,
}

/// Who may have an account who has none yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct SignUp {
    /// Nobody, whatever else is set.
    pub(crate) closed: bool,
    /// Besides the invited, everybody with a proven address in one of these; in lower case.
    pub(crate) domains: Vec<String>,
}

impl SignUp {
    /// Is an address in one of the listed domains? A subdomain is another domain.
    pub(crate) fn lists(&self, email: &str) -> bool {
        let domain = email.rsplit_once('@').map_or("", |(_, domain)| domain);
        !self.closed && self.domains.iter().any(|listed| listed == domain)
    }
}

impl SignInConfig {
    pub fn load(env: &mut Env) -> Self {
        let callback = |env: &mut Env, provider: &str| {
            let name = format!("LOOM_SERVER_{}_REDIRECT_URI", provider.to_uppercase());
            // Empty: ours, once it is known where we are reached.
            url(env, &name).unwrap_or_default()
        };
        let github = {
            let base_url = url_or(env, "LOOM_SERVER_GITHUB_BASE_URL", "https://github.com");
            let api_url = url_or(env, "LOOM_SERVER_GITHUB_API_URL", "https://api.github.com");
            let redirect_uri = callback(env, "github");
            registration(env, "GITHUB", redirect_uri).map(|registration| GitHubConfig {
                registration,
                base_url,
                api_url,
            })
        };
        let google = {
            let issuer =
                url_or(env, "LOOM_SERVER_GOOGLE_ISSUER_URL", "https://accounts.google.com");
            let hosted_domains = env.list("LOOM_SERVER_GOOGLE_HOSTED_DOMAINS");
            let redirect_uri = callback(env, "google");
            registration(env, "GOOGLE", redirect_uri).map(|registration| OidcConfig {
                provider: "google",
                name: "Google".to_owned(),
                registration,
                issuer,
                hosted_domains,
            })
        };
        let oidc = {
            let issuer_name = "LOOM_SERVER_OIDC_ISSUER_URL";
            // Compared to the letter with what the issuer calls itself, so that a slash at its end stays.
            let issuer = exact_url(env, issuer_name);
            let name = env.get("LOOM_SERVER_OIDC_NAME", "single sign-on".to_owned(), "a name");
            let redirect_uri = callback(env, "oidc");
            match (registration(env, "OIDC", redirect_uri), issuer) {
                (Some(registration), Some(issuer)) => Some(OidcConfig {
                    provider: "oidc",
                    name,
                    registration,
                    issuer,
                    hosted_domains: Vec::new(),
                }),
                (None, None) => None,
                (Some(_), None) => {
                    env.problem(issuer_name, "must be set along with LOOM_SERVER_OIDC_CLIENT_ID");
                    None
                }
                (None, Some(_)) => {
                    env.problem(
                        "LOOM_SERVER_OIDC_CLIENT_ID",
                        "must be set along with LOOM_SERVER_OIDC_ISSUER_URL, and the secret too",
                    );
                    None
                }
            }
        };
        Self {
            github,
            google,
            oidc,
            sign_up: sign_up(env),
            session_cleanup: env.secs(
                "LOOM_SERVER_AUTH_SESSION_CLEANUP_INTERVAL_SECS",
                3600,
                1,
                86_400,
            ),
            state_cleanup: env.secs(
                "LOOM_SERVER_AUTH_OAUTH_STATE_CLEANUP_INTERVAL_SECS",
                300,
                1,
                86_400,
            ),
        }
    }
}

fn sign_up(env: &mut Env) -> SignUp {
    let name = "LOOM_SERVER_SIGN_UP";
    let by_domain = env
        .choice(name, "invitation", &[("invitation", false), ("domains", true)])
        .unwrap_or(false);
    let listed = "LOOM_SERVER_SIGN_UP_DOMAINS";
    let domains: Vec<_> = env.list(listed).iter().map(|domain| domain.to_lowercase()).collect();
    for domain in domains.iter().filter(|domain| domain.contains('@') || !domain.contains('.')) {
        env.problem(listed, format!("`{domain}` is not a mail domain, as example.com"));
    }
    if by_domain && domains.is_empty() {
        env.problem(listed, "must name at least one domain when LOOM_SERVER_SIGN_UP is domains");
    }
    SignUp {
        closed: env.flag("LOOM_SERVER_SIGNUPS_DISABLED", false),
        domains: if by_domain { domains } else { Vec::new() },
    }
}

fn registration(env: &mut Env, provider: &str, redirect_uri: String) -> Option<Registration> {
    let (id_name, secret_name) = (
        format!("LOOM_SERVER_{provider}_CLIENT_ID"),
        format!("LOOM_SERVER_{provider}_CLIENT_SECRET"),
    );
    let client_id = env.optional::<String>(&id_name, "the client id of your registration");
    match (client_id, env.secret(&secret_name)) {
        (Some(client_id), Some(client_secret)) => {
            Some(Registration { client_id, client_secret, redirect_uri })
        }
        (None, None) => None,
        (Some(_), None) => {
            env.problem(&secret_name, format!("must be set along with {id_name}"));
            None
        }
        (None, Some(_)) => {
            env.problem(&id_name, format!("must be set along with {secret_name}"));
            None
        }
    }
}

fn is_web_url(text: &str) -> bool {
    text.parse::<Url>().is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

fn exact_url(env: &mut Env, name: &str) -> Option<String> {
    let text = env.optional::<String>(name, "an http(s) URL")?;
    if is_web_url(&text) {
        return Some(text);
    }
    env.problem(name, "must be an http(s) URL");
    None
}

fn url(env: &mut Env, name: &str) -> Option<String> {
    exact_url(env, name).map(|text| text.trim_end_matches('/').to_owned())
}

fn url_or(env: &mut Env, name: &str, default: &str) -> String {
    let text = env.get(name, default.to_owned(), "an http(s) URL");
    if !is_web_url(&text) {
        env.problem(name, "must be an http(s) URL");
    }
    text.trim_end_matches('/').to_owned()
}
