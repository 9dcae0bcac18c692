//! REDIS_URL: the kind of servers, their addresses, and the user.
//!
//! Invariant: no error contains a part of the URL, because it may hold a password.
use std::{fmt, path::PathBuf};

use bb8_redis::redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo};
use rollcall_base::tls::ClientTls;

/// The hint in errors: the forms of a valid URL.
const WRITE: &str = "write redis://USER:PASSWORD@HOST:6379/0 (rediss:// for TLS), redis+cluster://HOST:6379,HOST2 or \
    redis+sentinel://HOST:26379,HOST2/SERVICE; escape special characters of the password as %XX";
const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;
/// The parameters with the user and password for Sentinel. Sentinels do not know the user of the URL.
const SENTINEL_USER: &str = "sentinel_user";
const SENTINEL_PASSWORD: &str = "sentinel_password";

/// The address of a server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Endpoint {
    Tcp(String, u16),
    Unix(PathBuf),
}

impl Endpoint {
    /// Reads `HOST:PORT`, as a cluster names its nodes. A missing host means the host of `asked`, the node that gave
    /// the address.
    pub(crate) fn parse(text: &str, asked: &Self) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        Self::of(host, port.parse().ok()?, asked)
    }

    /// Creates an endpoint of a host and a port. Returns `None` if the host is unknown (`?`).
    pub(crate) fn of(host: &str, port: u16, asked: &Self) -> Option<Self> {
        match (host.trim_matches(['[', ']']), asked) {
            ("?", _) => None,
            ("" | "0.0.0.0" | "::", Self::Tcp(host, _)) => Some(Self::Tcp(host.clone(), port)),
            ("" | "0.0.0.0" | "::", Self::Unix(_)) => None,
            (host, _) => Some(Self::Tcp(host.to_owned(), port)),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// The servers at the endpoints.
#[derive(Clone, Debug)]
pub(crate) enum Servers {
    /// One server, which has all keys.
    Single,
    /// Sentinels, which know the server that has all keys.
    Sentinel {
        /// The name by which the Sentinels know that server.
        service: String,
        /// The user for the Sentinels.
        access: RedisConnectionInfo,
    },
    /// Some nodes of a cluster.
    Cluster,
}

/// The parts of the URL.
#[derive(Clone, Debug)]
pub(crate) struct RedisUrl {
    pub(crate) servers: Servers,
    /// The addresses; there is at least one.
    pub(crate) endpoints: Vec<Endpoint>,
    /// The user, password and database of the servers that have the keys.
    pub(crate) access: RedisConnectionInfo,
    pub(crate) tls: bool,
}

impl RedisUrl {
    /// Parses a URL.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").ok_or(WRITE)?;
        let (base, kind) = scheme.split_once('+').unwrap_or((scheme, ""));
        let authority = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        if base != "unix" && kind != "unix" && rest[authority..].contains('@') {
            // The text before it may be a part of the password, and would be taken for the host.
            return Err(WRITE.to_owned());
        }
        let tls = matches!(base, "rediss" | "valkeys");
        match (base, kind) {
            (_, "cluster") if is_redis(base) => Self::cluster(rest, tls),
            (_, "sentinel") if is_redis(base) => Self::sentinel(rest, tls),
            (_, "") if tls => Self::single(&format!("redis://{rest}"), tls),
            _ => Self::single(text, tls),
        }
    }

    /// Refuses certificates for servers without TLS.
    pub(crate) fn check_certificates(&self, files: &ClientTls) -> Result<(), &'static str> {
        match self.tls || *files == ClientTls::default() {
            true => Ok(()),
            false => Err("has to begin with rediss: certificates are given, and redis is without TLS"),
        }
    }

    /// Returns whether both URLs name the same kind of servers.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(&self.servers) == std::mem::discriminant(&other.servers)
    }

    fn single(text: &str, tls: bool) -> Result<Self, String> {
        if text.contains('#') {
            return Err("leave out what follows #: the server's certificate is always checked".into());
        }
        let info = text.into_connection_info().map_err(|_| WRITE)?;
        let endpoint = match info.addr() {
            ConnectionAddr::Tcp(host, port) => Endpoint::Tcp(host.clone(), *port),
            ConnectionAddr::Unix(path) => Endpoint::Unix(path.clone()),
            _ => return Err(WRITE.into()),
        };
        Ok(Self { servers: Servers::Single, endpoints: vec![endpoint], access: info.redis_settings().clone(), tls })
    }

    fn cluster(rest: &str, tls: bool) -> Result<Self, String> {
        let Several { user, hosts, path, query } = Several::of(rest);
        if !matches!(path, "" | "0") {
            return Err("a cluster has database 0 alone: leave the path out".into());
        }
        let nodes = hosts.map(|host| one(user, host, PORT, "0", query)).collect::<Result<Vec<_>, _>>()?;
        Self::several(Servers::Cluster, nodes, tls)
    }

    fn sentinel(rest: &str, tls: bool) -> Result<Self, String> {
        let Several { user, hosts, path, query } = Several::of(rest);
        let (service, database) = path.split_once('/').unwrap_or((path, "0"));
        if service.is_empty() {
            return Err("name the service that Sentinel watches: redis+sentinel://HOST:26379,HOST2/SERVICE".into());
        }
        let mut access = RedisConnectionInfo::default();
        let mut others = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = || percent_encoding::percent_decode_str(value).decode_utf8().map_err(|_| WRITE);
            match name {
                SENTINEL_USER => access = access.set_username(value()?),
                SENTINEL_PASSWORD => access = access.set_password(value()?),
                _ => others.push(pair),
            }
        }
        let others = others.join("&");
        let nodes = hosts.map(|host| one(user, host, SENTINEL_PORT, database, &others)).collect::<Result<_, _>>()?;
        Self::several(Servers::Sentinel { service: service.to_owned(), access }, nodes, tls)
    }

    fn several(servers: Servers, nodes: Vec<ConnectionInfo>, tls: bool) -> Result<Self, String> {
        let access = nodes.first().ok_or(WRITE)?.redis_settings().clone();
        let endpoint = |node: &ConnectionInfo| match node.addr() {
            ConnectionAddr::Tcp(host, port) => Ok(Endpoint::Tcp(host.clone(), *port)),
            _ => Err(WRITE.to_owned()),
        };
        Ok(Self { servers, endpoints: nodes.iter().map(endpoint).collect::<Result<_, _>>()?, access, tls })
    }
}

/// Returns whether this is a scheme that the library knows, too.
fn is_redis(base: &str) -> bool {
    matches!(base, "redis" | "rediss" | "valkey" | "valkeys")
}

/// The parts of `user:password@HOST:PORT,HOST2/path?query`, which no URL library parses.
struct Several<'a, H> {
    user: &'a str,
    hosts: H,
    path: &'a str,
    query: &'a str,
}

impl<'a> Several<'a, ()> {
    fn of(rest: &'a str) -> Several<'a, impl Iterator<Item = &'a str>> {
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (user, rest) = rest.rsplit_once('@').unwrap_or(("", rest));
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        Several { user, hosts: hosts.split(',').map(str::trim), path: path.trim_end_matches('/'), query }
    }
}

/// Returns the URL of one of several hosts, parsed by the library.
fn one(user: &str, host: &str, port: u16, database: &str, query: &str) -> Result<ConnectionInfo, String> {
    let at = if user.is_empty() { "" } else { "@" };
    // A colon inside brackets belongs to an IPv6 address.
    let has_port = host.rsplit(']').next().is_some_and(|end| end.contains(':'));
    let port = if has_port { String::new() } else { format!(":{port}") };
    let url = format!("redis://{user}{at}{host}{port}/{database}?{query}");
    url.as_str().into_connection_info().map_err(|_| WRITE.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a URL's endpoints, user, password and database as one text.
    fn read(text: &str) -> String {
        let RedisUrl { servers, endpoints, access, tls } = RedisUrl::parse(text).unwrap();
        let kind = match servers {
            Servers::Single => "single".to_owned(),
            Servers::Cluster => "cluster".to_owned(),
            Servers::Sentinel { service, access } => format!("{service} of {:?}", access.password()),
        };
        let endpoints: Vec<String> = endpoints.iter().map(ToString::to_string).collect();
        let (user, password) = (access.username().unwrap_or("-"), access.password().unwrap_or("-"));
        format!("{kind} at {} as {user}:{password} db {} tls {tls}", endpoints.join(" "), access.db())
    }

    #[test]
    fn each_kind_of_url_is_read() {
        assert_eq!(read("redis://h"), "single at h:6379 as -:- db 0 tls false");
        assert_eq!(read("rediss://u:p%40w@[::1]:1/2"), "single at [::1]:1 as u:p@w db 2 tls true");
        assert_eq!(read("unix:///run/redis.sock"), "single at /run/redis.sock as -:- db 0 tls false");
        assert_eq!(
            read("redis+cluster://:p@a,b:7000,[::1]"),
            "cluster at a:6379 b:7000 [::1]:6379 as -:p db 0 tls false"
        );
        assert_eq!(read("valkeys+cluster://h/"), "cluster at h:6379 as -:- db 0 tls true");
        let sentinel = "rediss+sentinel://u:p@a,b:1/main/3?sentinel_user=s&sentinel_password=x%26y";
        assert_eq!(read(sentinel), "main of Some(\"x&y\") at a:26379 b:1 as u:p db 3 tls true");
        assert_eq!(read("redis+sentinel://a/main"), "main of None at a:26379 as -:- db 0 tls false");
    }

    #[test]
    fn what_is_no_url_is_told_without_its_password() {
        let wrong = [
            "localhost:6379",
            "http://canary@h",
            "redis+other://canary@h",
            "redis+cluster://u:canary@h/1",
            "redis+cluster://u:canary@h,:x",
            "redis+sentinel://u:canary@h",
            "redis+sentinel://u:canary@h/main/x",
            "rediss://u:canary@h#insecure",
            "redis://u:12?canary@h",
            "redis+cluster://u:12/canary@h",
            "redis+sentinel://h/main?sentinel_password=c@nary",
        ];
        for url in wrong {
            let error = RedisUrl::parse(url).expect_err(url);
            assert!(!error.contains("canary") && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_node_that_names_no_host_means_the_one_that_was_asked() {
        let asked = Endpoint::Tcp("cache.example".into(), 6379);
        let read = |text| Endpoint::parse(text, &asked).map(|endpoint| endpoint.to_string());
        assert_eq!(read("10.0.0.1:7000"), Some("10.0.0.1:7000".into()));
        assert_eq!(read("::1:7000"), Some("[::1]:7000".into()));
        assert_eq!(read(":7000"), Some("cache.example:7000".into()));
        assert_eq!(read("?:7000"), None);
    }
}
