//! The files of the console's pages, and the rules that a browser applies to them.
//!
//! Invariant: the pages are files in this binary, and load and run no other files. They contain no data, but request it
//! with the token.
use bytes::Bytes;
use hyper::{
    Method, Response, StatusCode,
    header::{self, HeaderName, HeaderValue},
};

use super::reply::{HttpError, Reply, with};

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// A file below `runtime/console`: its path in the URL, its type, its text.
type File = (&'static str, &'static str, &'static str);

macro_rules! files {
    ($($kind:ident $name:literal),* $(,)?) => {
        [
            ("/", HTML, include_str!("../../console/index.html")),
            $((concat!("/console/", $name), $kind, include_str!(concat!("../../console/", $name)))),*
        ]
    };
}

const FILES: &[File] = &files![
    CSS "style.css",
    SVG "icon.svg",
    SCRIPT "main.js",
    SCRIPT "api.js",
    SCRIPT "dom.js",
    SCRIPT "format.js",
    SCRIPT "plot.js",
    SCRIPT "now.js",
    SCRIPT "classrooms.js",
    SCRIPT "classroom.js",
    SCRIPT "roster.js",
    SCRIPT "seats.js",
    SCRIPT "tail.js",
    SCRIPT "attendance.js",
    SCRIPT "publish.js",
    SCRIPT "try.js",
    SCRIPT "client.js",
    SCRIPT "explain.js",
    SCRIPT "reasons.js",
];

/// The console's pages.
#[derive(Clone, Debug)]
pub struct Pages {
    policy: HeaderValue,
}

impl Pages {
    /// Creates the pages. They may connect to their own address and, for the demo, to the clients' listener
    /// (`ws://127.0.0.1:8080`).
    #[must_use]
    pub fn new(demo: Option<&str>) -> Self {
        let connect = demo.map(|origin| format!(" {origin}")).unwrap_or_default();
        let policy = format!(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'{connect}; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
             trusted-types 'none'"
        );
        Self { policy: HeaderValue::try_from(policy).expect("an address is ASCII") }
    }

    /// Answers a request for one of the files.
    pub(super) fn file(&self, method: &Method, path: &str) -> Result<Reply, HttpError> {
        let found = FILES.iter().find(|file| file.0 == path);
        let found = found.ok_or_else(|| HttpError::new(StatusCode::NOT_FOUND, "there is no such file"));
        let (_, kind, text) = *found?;
        if !matches!(*method, Method::GET | Method::HEAD) {
            return Err(HttpError::method("GET"));
        }
        let mut reply = with(StatusCode::OK, kind, Bytes::from_static(text.as_bytes()));
        protect(&mut reply, &self.policy);
        Ok(reply)
    }
}

/// Returns whether a path is one of the console's files.
pub(super) fn is_file(path: &str) -> bool {
    path == "/" || path.starts_with("/console/")
}

fn protect<B>(reply: &mut Response<B>, policy: &HeaderValue) {
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, policy.clone());
    for (name, value) in [
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    #[test]
    fn every_file_of_the_folder_is_served_and_loads_only_others() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("console");
        let there: BTreeSet<String> = fs::read_dir(folder)
            .unwrap()
            .map(|file| format!("/console/{}", file.unwrap().file_name().into_string().unwrap()))
            .map(|path| if path == "/console/index.html" { "/".to_owned() } else { path })
            .collect();
        assert_eq!(there, FILES.iter().map(|file| file.0.to_owned()).collect());
        for (path, _, text) in FILES {
            for forbidden in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "style=\""] {
                assert!(!text.contains(forbidden), "{forbidden} in {path}");
            }
            let imports = text.split("from \"").skip(1).filter_map(|rest| rest.split('"').next());
            for import in imports.filter(|import| import.starts_with('.') || import.starts_with('/')) {
                let target = import.replace("./", "/console/");
                assert!(FILES.iter().any(|file| file.0 == target), "{path} imports {import}");
            }
        }
    }
}
