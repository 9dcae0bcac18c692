use hyper::{Method, Request, StatusCode, Version};

use super::{Origins, UpgradeError, accept, check};

/// Returns a valid request with these headers changed or removed.
fn request(changes: &[(&'static str, Option<&'static str>)]) -> Request<()> {
    let mut request = Request::builder().uri("/ws").body(()).expect("a request");
    let valid = [
        ("host", "school.example.org:8080"),
        ("upgrade", "websocket"),
        ("connection", "keep-alive, Upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    for (name, value) in valid {
        request.headers_mut().insert(name, value.parse().expect("a value"));
    }
    for (name, value) in changes {
        request.headers_mut().remove(*name);
        if let Some(value) = value {
            request.headers_mut().insert(*name, value.parse().expect("a value"));
        }
    }
    request
}

#[track_caller]
fn refused(request: &Request<()>, error: UpgradeError, status: StatusCode) {
    assert_eq!(check(request, &Origins::SameHost), Err(error));
    assert_eq!(error.response().status(), status);
}

#[test]
fn the_example_of_the_rfc_is_accepted() {
    let request = request(&[]);
    assert_eq!(check(&request, &Origins::SameHost), Ok(()));
    let response = accept(&request);
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_eq!(response.headers()["upgrade"], "websocket");
    assert_eq!(response.headers()["connection"], "upgrade");
}

#[test]
fn only_get_is_upgraded() {
    let mut request = request(&[]);
    *request.method_mut() = Method::POST;
    refused(&request, UpgradeError::Method, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(UpgradeError::Method.response().headers()["allow"], "GET");
}

#[test]
fn http_1_0_is_not_upgraded() {
    let mut request = request(&[]);
    *request.version_mut() = Version::HTTP_10;
    refused(&request, UpgradeError::Http, StatusCode::BAD_REQUEST);
}

#[test]
fn upgrade_and_connection_are_required() {
    for change in
        [("upgrade", None), ("upgrade", Some("h2c")), ("connection", None), ("connection", Some("keep-alive"))]
    {
        refused(&request(&[change]), UpgradeError::NotAnUpgrade, StatusCode::UPGRADE_REQUIRED);
    }
}

#[test]
fn other_versions_are_answered_with_version_13() {
    for change in [None, Some("12"), Some("8"), Some("13, 8"), Some("013")] {
        refused(&request(&[("sec-websocket-version", change)]), UpgradeError::Version, StatusCode::UPGRADE_REQUIRED);
    }
    assert_eq!(UpgradeError::Version.response().headers()["sec-websocket-version"], "13");
}

#[test]
fn the_key_is_16_bytes_in_base64() {
    for key in [
        None,
        Some(""),
        Some("c2hvcnQ="),
        Some("dGhlIHNhbXBsZSBub25jZQ"),
        Some("dGhlIHNhbXBsZSBub25jZSE="),
        Some("!!!!"),
    ] {
        refused(&request(&[("sec-websocket-key", key)]), UpgradeError::Key, StatusCode::BAD_REQUEST);
    }
    let mut twice = request(&[]);
    twice.headers_mut().append("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==".parse().expect("a value"));
    refused(&twice, UpgradeError::Key, StatusCode::BAD_REQUEST);
}

#[test]
fn a_host_is_required_and_a_body_is_refused() {
    refused(&request(&[("host", None)]), UpgradeError::Host, StatusCode::BAD_REQUEST);
    refused(&request(&[("host", Some(""))]), UpgradeError::Host, StatusCode::BAD_REQUEST);
    refused(&request(&[("content-length", Some("5"))]), UpgradeError::Body, StatusCode::BAD_REQUEST);
    refused(&request(&[("transfer-encoding", Some("chunked"))]), UpgradeError::Body, StatusCode::BAD_REQUEST);
    assert_eq!(check(&request(&[("content-length", Some("0"))]), &Origins::SameHost), Ok(()));
}

#[test]
fn origins_of_the_same_host_pass_and_others_do_not() {
    for origin in [None, Some("http://school.example.org:8080"), Some("https://School.Example.org:8080")] {
        assert_eq!(check(&request(&[("origin", origin)]), &Origins::SameHost), Ok(()), "{origin:?}");
    }
    for origin in [
        "null",
        "",
        "http://evil.example.org",
        "http://school.example.org",
        "http://school.example.org:8080.evil.org",
        "http://evil@school.example.org:8080",
        "file://school.example.org:8080",
        "school.example.org:8080",
    ] {
        refused(&request(&[("origin", Some(origin))]), UpgradeError::Origin, StatusCode::FORBIDDEN);
    }
}

#[test]
fn listed_origins_pass_besides_the_same_host() {
    let listed = Origins::Listed(vec!["https://app.example.org".into()]);
    assert_eq!(check(&request(&[("origin", Some("https://app.example.org"))]), &listed), Ok(()));
    assert_eq!(check(&request(&[("origin", Some("http://school.example.org:8080"))]), &listed), Ok(()));
    assert_eq!(check(&request(&[("origin", Some("http://app.example.org"))]), &listed), Err(UpgradeError::Origin));
    assert_eq!(check(&request(&[("origin", Some("null"))]), &listed), Err(UpgradeError::Origin));
    assert_eq!(check(&request(&[("origin", Some("null"))]), &Origins::Any), Ok(()));
    for app in ["capacitor://localhost", "ionic://localhost", "tauri://localhost", "app://-"] {
        let listed = Origins::Listed(vec![app.into()]);
        assert_eq!(check(&request(&[("origin", Some(app))]), &listed), Ok(()), "{app}");
        assert_eq!(check(&request(&[("origin", Some(app))]), &Origins::SameHost), Err(UpgradeError::Origin), "{app}");
        assert_eq!(check(&request(&[("origin", Some("app://+"))]), &listed), Err(UpgradeError::Origin), "{app}");
    }
}
