//! What a browser does as far as signing in cares: it keeps cookies by host, follows no redirect by
//! itself so that a test sees each, and says where its requests come from.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use loom_server::app::Running;
use reqwest::{
    Client, Method, Url,
    header::{COOKIE, LOCATION, ORIGIN, SET_COOKIE, USER_AGENT},
    redirect::Policy,
};

use crate::{Answer, TestApp};

const AGENT: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:131.0) Gecko/20100101 Firefox/131.0";

/// A browser with cookies of its own; a clone shares them, as a tab does.
#[derive(Clone)]
pub struct Browser {
    http: Client,
    base_url: String,
    cookies: Arc<Mutex<BTreeMap<(String, String), String>>>,
    /// Every `Set-Cookie` that came.
    pub seen: Arc<Mutex<Vec<String>>>,
}

impl TestApp {
    /// A browser without any cookie.
    pub fn browser(&self) -> Browser {
        let http = Client::builder().no_proxy().redirect(Policy::none()).build().unwrap();
        let base_url = format!("http://localhost:{}", self.running.address.port());
        Browser { http, base_url, cookies: Arc::default(), seen: Arc::default() }
    }
}

impl Answer {
    /// Where it leads.
    #[track_caller]
    pub fn location(&self) -> String {
        let to = self.headers.get(LOCATION);
        to.unwrap_or_else(|| panic!("no redirect: {self:?}")).to_str().unwrap().to_owned()
    }
}

impl Browser {
    /// The same browser, as it is seen at another replica.
    #[must_use]
    pub fn at(&self, replica: &Running) -> Self {
        let base_url = format!("http://localhost:{}", replica.address.port());
        Self { base_url, ..self.clone() }
    }

    fn url(&self, to: &str) -> Url {
        Url::parse(&self.base_url).unwrap().join(to).unwrap()
    }

    pub fn cookie(&self, name: &str) -> Option<String> {
        let host = self.url("/").host_str().unwrap().to_owned();
        self.cookies.lock().unwrap().get(&(host, name.to_owned())).cloned()
    }

    pub fn set_cookie(&self, name: &str, value: &str) {
        let host = self.url("/").host_str().unwrap().to_owned();
        self.cookies.lock().unwrap().insert((host, name.to_owned()), value.to_owned());
    }

    pub async fn send(
        &self,
        method: Method,
        to: &str,
        body: Option<(&str, String)>,
        headers: &[(&str, &str)],
    ) -> Answer {
        let url = self.url(to);
        let host = url.host_str().unwrap().to_owned();
        let mut request = self.http.request(method.clone(), url).header(USER_AGENT, AGENT);
        let cookies: Vec<_> = {
            let cookies = self.cookies.lock().unwrap();
            let own = cookies.iter().filter(|((of, _), _)| *of == host);
            own.map(|((_, name), value)| format!("{name}={value}")).collect()
        };
        if !cookies.is_empty() {
            request = request.header(COOKIE, cookies.join("; "));
        }
        let own = [("sec-fetch-site", "same-origin"), (ORIGIN.as_str(), &self.base_url)];
        let is_said = |name: &str| headers.iter().any(|(said, _)| *said == name);
        if method != Method::GET && method != Method::HEAD {
            for (name, value) in own.into_iter().filter(|(name, _)| !is_said(name)) {
                request = request.header(name, value);
            }
        }
        for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
            request = request.header(*name, *value);
        }
        if let Some((kind, body)) = body {
            request = request.header("content-type", kind).body(body);
        }
        let answer = request.send().await.unwrap();
        for line in answer.headers().get_all(SET_COOKIE) {
            let line = line.to_str().unwrap();
            self.seen.lock().unwrap().push(line.to_owned());
            let (name, rest) = line.split_once('=').unwrap();
            let value = rest.split(';').next().unwrap().to_owned();
            let mut cookies = self.cookies.lock().unwrap();
            if line.contains("Max-Age=0") {
                cookies.remove(&(host.clone(), name.to_owned()));
            } else {
                cookies.insert((host.clone(), name.to_owned()), value);
            }
        }
        let (status, headers) = (answer.status(), answer.headers().clone());
        Answer { status, headers, text: answer.text().await.unwrap() }
    }

    /// As for a link or the address bar; `to` is a path here or a whole URL.
    pub async fn get(&self, to: &str) -> Answer {
        self.send(Method::GET, to, None, &[("accept", "text/html")]).await
    }

    /// A form of a page of ours.
    pub async fn submit(&self, to: &str, fields: &[(&str, &str)]) -> Answer {
        self.submit_with(to, fields, &[]).await
    }

    /// The same with other headers; an empty one is left away.
    pub async fn submit_with(
        &self,
        to: &str,
        fields: &[(&str, &str)],
        headers: &[(&str, &str)],
    ) -> Answer {
        let form = serde_urlencoded::to_string(fields).unwrap();
        let body = ("application/x-www-form-urlencoded", form);
        self.send(Method::POST, to, Some(body), headers).await
    }

    pub async fn post_json(&self, to: &str, body: &serde_json::Value) -> Answer {
        self.send(Method::POST, to, Some(("application/json", body.to_string())), &[]).await
    }

    pub async fn delete(&self, to: &str) -> Answer {
        self.send(Method::DELETE, to, None, &[]).await
    }

    /// The URL that comes back from a provider, to be opened or tampered with.
    pub async fn to_provider_and_back(&self, provider: &str) -> String {
        let gone = self.get(&format!("/auth/login/{provider}")).await.expect(302);
        self.get(&gone.location()).await.expect(303).location()
    }

    /// A whole sign-in at a provider; gives the last answer.
    pub async fn sign_in_with(&self, provider: &str) -> Answer {
        let back = self.to_provider_and_back(provider).await;
        self.get(&back).await
    }
}
