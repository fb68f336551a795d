//! Settings whose words are the cluster's. What it would refuse in each pod is refused at the start.

use std::collections::BTreeMap;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Toleration;
use loom_core::config::Env;

use crate::image;

const SELECTOR: &str = "LOOM_SERVER_WEAVER_NODE_SELECTOR";
const TOLERATIONS: &str = "LOOM_SERVER_WEAVER_TOLERATIONS";
const NAMESPACE: &str = "LOOM_SERVER_WEAVER_K8S_NAMESPACE";
const PULL_SECRETS: &str = "LOOM_SERVER_WEAVER_IMAGE_PULL_SECRETS";
const RUNTIME: &str = "LOOM_SERVER_WEAVER_RUNTIME_CLASS";
const EXCEPT: &str = "LOOM_SERVER_WEAVER_NETWORK_EXCEPT";
const SERVER: &str = "LOOM_SERVER_WEAVER_SERVER_URL";
const IMAGES: &str = "LOOM_SERVER_WEAVER_IMAGES";
const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

pub(super) fn namespace(env: &mut Env) -> String {
    let allowed = "the name of a namespace: lower-case letters, digits and `-`";
    let name = env.get(NAMESPACE, "loom-weavers".to_owned(), allowed);
    if !is_name(&name) || name.contains('.') || name.len() > 63 {
        env.problem(NAMESPACE, format!("must be {allowed}"));
    }
    name
}

pub(super) fn runtime_class(env: &mut Env) -> Option<String> {
    let allowed = "the name of a runtime class: lower-case letters, digits, `-` and `.`";
    let name = env.optional::<String>(RUNTIME, allowed)?;
    if !is_name(&name) {
        env.problem(RUNTIME, format!("must be {allowed}"));
    }
    Some(name)
}

/// Names of secrets in the namespace.
pub(super) fn pull_secrets(env: &mut Env) -> Vec<String> {
    let names = env.list(PULL_SECRETS);
    if let Some(bad) = names.iter().find(|name| !is_name(name)) {
        let why =
            format!("`{bad}` is no name of a secret: lower-case letters, digits, `-` and `.`");
        env.problem(PULL_SECRETS, why);
    }
    names
}

/// `key=value` of each.
pub(super) fn node_selector(env: &mut Env) -> BTreeMap<String, String> {
    let mut selector = BTreeMap::new();
    for item in env.list(SELECTOR) {
        match item.split_once('=') {
            Some((key, value)) if is_key(key) && is_value(value) => {
                selector.insert(key.to_owned(), value.to_owned());
            }
            _ => env.problem(
                SELECTOR,
                format!("`{item}` is no label of a node as key=value, as pool=weavers"),
            ),
        }
    }
    selector
}

/// `key` or `key=value` of each, with or without `:effect` at its end.
pub(super) fn tolerations(env: &mut Env) -> Vec<Toleration> {
    let mut tolerations = Vec::new();
    for item in env.list(TOLERATIONS) {
        match toleration(&item) {
            Some(toleration) => tolerations.push(toleration),
            None => env.problem(
                TOLERATIONS,
                format!(
                    "`{item}` is no taint as key, key=value, key:effect or key=value:effect, with one of the \
                     effects {}",
                    EFFECTS.join(", ")
                ),
            ),
        }
    }
    tolerations
}

fn toleration(item: &str) -> Option<Toleration> {
    let (taint, effect) = match item.split_once(':') {
        Some((taint, effect)) => (taint, Some(effect)),
        None => (item, None),
    };
    let (key, value) = match taint.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (taint, None),
    };
    let is_sound = is_key(key)
        && value.is_none_or(is_value)
        && effect.is_none_or(|effect| EFFECTS.contains(&effect));
    is_sound.then(|| Toleration {
        key: Some(key.to_owned()),
        operator: Some(if value.is_some() { "Equal" } else { "Exists" }.to_owned()),
        value: value.map(str::to_owned),
        effect: effect.map(str::to_owned),
        toleration_seconds: None,
    })
}

/// Ranges of addresses, each smaller than all there are.
pub(super) fn ranges(env: &mut Env) -> Vec<String> {
    let ranges = env.list(EXCEPT);
    let is_range =
        |range: &&String| range.parse::<IpNet>().is_ok_and(|range| range.prefix_len() > 0);
    if let Some(bad) = ranges.iter().find(|range| !is_range(range)) {
        env.problem(EXCEPT, format!("`{bad}` is no range of addresses, as 203.0.113.0/24"));
    }
    ranges
}

pub(super) fn server_url(env: &mut Env) -> Option<String> {
    let allowed = "an http(s) URL";
    let text = env.optional::<String>(SERVER, allowed)?;
    let is_url = text.parse::<http::Uri>().is_ok_and(|url| {
        matches!(url.scheme_str(), Some("http" | "https"))
            && url.host().is_some_and(|host| !host.is_empty())
    });
    if !is_url {
        env.problem(SERVER, format!("must be {allowed}"));
    }
    Some(text)
}

/// Names of images, and beginnings of names.
pub(super) fn images(env: &mut Env) -> Vec<String> {
    let images = env.list(IMAGES);
    let is_one = |entry: &str| {
        let begin = entry.strip_suffix(['/', ':', '@']).unwrap_or(entry);
        image::whole(begin).is_some()
    };
    if let Some(bad) = images.iter().find(|entry| !is_one(entry)) {
        let why = format!(
            "`{bad}` is no name of an image, nor the beginning of one that ends in `/`, `:` or `@`, as ghcr.io/acme/"
        );
        env.problem(IMAGES, why);
    }
    images
}

pub(super) fn one_image(env: &mut Env, name: &str) -> Option<String> {
    let text = env.optional::<String>(name, "text without spaces")?;
    if image::whole(&text).is_none() {
        env.problem(name, "must be the name of an image, as ghcr.io/acme/tool:1");
    }
    Some(text)
}

/// A DNS name, as those of objects are.
fn is_name(name: &str) -> bool {
    name.len() <= 253
        && name.split('.').all(|part| {
            is_bounded(part)
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        })
}

/// `name` or `prefix/name` of a label.
fn is_key(key: &str) -> bool {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    prefix.is_none_or(is_name) && !name.is_empty() && is_value(name)
}

fn is_value(value: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    value.is_empty() || (value.len() <= 63 && is_bounded(value) && value.bytes().all(fits))
}

/// Begins and ends with a letter or digit.
fn is_bounded(text: &str) -> bool {
    let is_sound = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    is_sound(text.bytes().next()) && is_sound(text.bytes().last())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is wrong with a value of a setting.
    fn fault(name: &str, value: &str) -> Option<String> {
        let mut env = Env::new([(name.to_owned(), value.to_owned())]);
        super::super::Config::load(&mut env, "https://loom.example");
        env.problems().first().map(|problem| problem.message.clone())
    }

    #[test]
    fn what_the_cluster_would_refuse_in_each_pod_is_refused_at_the_start() {
        let cases = [
            (SELECTOR, "pool=weavers,kubernetes.io/arch=amd64,empty=", ""),
            (SELECTOR, "pool", "`pool`"),
            (SELECTOR, "pool=a b", "`pool=a b`"),
            (SELECTOR, "-pool=a", "`-pool=a`"),
            (SELECTOR, "=a", "`=a`"),
            (TOLERATIONS, "spot,dedicated=weavers:NoSchedule,example.com/gpu:NoExecute", ""),
            (TOLERATIONS, "dedicated=weavers:Never", "PreferNoSchedule"),
            (TOLERATIONS, "a/b/c", "`a/b/c`"),
            (TOLERATIONS, ":NoSchedule", "`:NoSchedule`"),
            (NAMESPACE, "agents-2", ""),
            (NAMESPACE, "Agents", "lower-case"),
            (NAMESPACE, "a.b", "lower-case"),
            (EXCEPT, "203.0.113.0/24,2001:db8::/32", ""),
            (EXCEPT, "203.0.113.0", "`203.0.113.0`"),
            (EXCEPT, "0.0.0.0/0", "`0.0.0.0/0`"),
            (PULL_SECRETS, "registry.one,two", ""),
            (PULL_SECRETS, "one,Two", "`Two`"),
            (RUNTIME, "gvisor", ""),
            (RUNTIME, "gVisor", "runtime class"),
            (RUNTIME, "gvisor,kata", "runtime class"),
            (SERVER, "http://loom.example:8080/", ""),
            (SERVER, "loom.example", "http(s)"),
            (SERVER, "ftp://loom.example", "http(s)"),
            (IMAGES, "ghcr.io/,localhost:5000/,acme/,alpine:,r.io/a@,busybox:1.36", ""),
            (IMAGES, "alpine,ghcr.io/acme/*", "`ghcr.io/acme/*`"),
            ("LOOM_SERVER_WEAVER_GIT_IMAGE", "alpine/git:2", ""),
            ("LOOM_SERVER_WEAVER_GIT_IMAGE", "a;b", "name of an image"),
        ];
        for (name, value, said) in cases {
            match fault(name, value) {
                Some(fault) => {
                    assert!(!said.is_empty() && fault.contains(said), "{name}={value}: {fault}");
                }
                None => assert!(said.is_empty(), "{name}={value}"),
            }
        }
    }
}
