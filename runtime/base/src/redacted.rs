//! URLs in a form that may be shown in the log, in errors and by `rollcall check`.
//!
//! Invariant: no part of a URL's user, password and parameters is shown, however the URL is written.

use std::fmt::Display;

/// The text in place of a URL whose host cannot be told from its password.
const HIDDEN: &str = "...";

/// Returns the URL without its user, its password and its parameters.
#[must_use]
pub fn redacted(url: impl Display) -> String {
    let url = url.to_string();
    let is_scheme = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    let (scheme, rest) = match url.split_once("://").filter(|(scheme, _)| is_scheme(scheme)) {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), url.as_str()),
    };
    let shown = match rest.rsplit_once('@') {
        // The `@` may be part of a parameter, and so may the text after it.
        Some((before, _)) if before.contains(['?', '#']) => HIDDEN,
        // A password may contain a `/` or an `@` that should have been escaped: all text before the last `@` is hidden.
        Some((_, after)) => after,
        None => rest,
    };
    scheme + shown.split(['?', '#']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_secret_is_shown() {
        for (url, shown) in [
            ("postgres://me:p@ss/w@db:5432,other/x?sslmode=disable&password=p", "postgres://db:5432,other/x"),
            ("redis+cluster://:hunter2@h/0", "redis+cluster://h/0"),
            ("nats://127.0.0.1:4222", "nats://127.0.0.1:4222"),
            ("me:hunter2@proxy.example:3128", "proxy.example:3128"),
            ("sqlite:rollcall.db", "sqlite:rollcall.db"),
            ("https://hooks.example/classes?key=hunter2", "https://hooks.example/classes"),
            ("postgres://db/x?application_name=me@here&password=hunter2", "postgres://..."),
            ("postgres://me:hunter?2@db/x", "postgres://..."),
        ] {
            assert_eq!(redacted(url), shown);
        }
    }

    /// Texts with every character that URLs are made of.
    fn text() -> impl Strategy<Value = String> {
        "[a-z0-9@:/?#&=%,. +-]{0,12}"
    }

    proptest! {
        #[test]
        fn no_secret_is_shown(
            scheme in "(|(postgres|redis[+]sentinel|nats|https)://)",
            user in text(),
            (before, after) in (text(), text()),
            host in "[a-z0-9.]{1,9}(:[0-9]{1,5})?(,[a-z]{1,5})?",
            path in "(/[a-z0-9/]{0,9})?",
            (name, value, more) in ("[a-z_]{0,9}", text(), text()),
        ) {
            let secret = "CANARY";
            let with_password = format!("{scheme}{user}:{before}{secret}{after}@{host}{path}?{name}={value}{more}");
            let with_parameter = format!("{scheme}{host}{path}?{name}={value}{secret}{more}");
            let with_both = format!("{scheme}{user}:{secret}{before}@{host}{path}?{name}={after}&x={value}{secret}{more}");
            for url in [with_password, with_parameter, with_both] {
                prop_assert!(!redacted(&url).contains(secret), "{url}");
            }
        }
    }
}
