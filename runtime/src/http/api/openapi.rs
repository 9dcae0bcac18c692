//! `GET openapi.json` returns the description of this API.
use bytes::Bytes;
use hyper::StatusCode;

use crate::http::{
    admin::Admin,
    call::Call,
    reply::{HttpError, Reply, with},
};

/// Returns the document, which is a file of this repository.
pub(super) async fn document(_: &Admin, _: &Call<'_>) -> Result<Reply, HttpError> {
    Ok(with(StatusCode::OK, "application/json", Bytes::from_static(rollcall_schema::OPENAPI.as_bytes())))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use crate::http::api::ROUTES;

    #[test]
    fn it_describes_every_line_of_the_table_and_nothing_else() {
        let document: Value = serde_json::from_str(rollcall_schema::OPENAPI).unwrap();
        let described: BTreeSet<(String, String)> = document["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, operations)| {
                let methods = operations.as_object().unwrap().keys().filter(|method| *method != "parameters");
                methods.map(move |method| (method.to_uppercase(), path.clone()))
            })
            .collect();
        let answered: BTreeSet<_> =
            ROUTES.iter().map(|route| (route.verb.as_str().to_owned(), route.path.to_owned())).collect();
        assert_eq!(described, answered);
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    }
}
