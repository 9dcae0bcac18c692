//! `GET nodes` lists the running processes.
use hyper::StatusCode;
use rollcall_store::NodeRow;
use serde::Serialize;

use crate::http::{
    admin::Admin,
    call::Call,
    reply::{HttpError, Reply, json},
};

#[derive(Serialize)]
struct Nodes {
    nodes: Vec<NodeRow>,
}

/// Lists the nodes by id. A node whose lease has ended is listed until another node has ended its sessions.
pub(super) async fn list(admin: &Admin, _: &Call<'_>) -> Result<Reply, HttpError> {
    let nodes = admin.store.nodes().await.map_err(|error| admin.refusal(&error))?;
    Ok(json(StatusCode::OK, &Nodes { nodes }))
}
