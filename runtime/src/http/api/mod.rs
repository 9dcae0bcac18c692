//! The table of the requests that the admin address answers. It has one line for each method and path, and one file for
//! each resource.
mod agents;
mod attendance;
mod classrooms;
mod counters;
mod disconnect;
mod erase;
mod events;
mod history;
mod lessons;
mod nodes;
mod openapi;
mod probes;
mod publish;
mod publish_headers;
mod seats;
mod sessions;

use super::{reply::streamed, route::Route};

/// An endpoint whose answer is complete before it is sent.
macro_rules! whole {
    ($endpoint:path) => {
        |admin, call| Box::pin(async move { $endpoint(admin, call).await.map(streamed) })
    };
}

/// All requests. Each path has one method.
pub(super) const ROUTES: &[Route] = &[
    Route::get("/healthz", whole!(probes::alive)),
    Route::get("/readyz", whole!(probes::ready)),
    Route::get("/metrics", whole!(probes::metrics)),
    Route::get("/api/v1/openapi.json", whole!(openapi::document)),
    Route::get("/api/v1/nodes", whole!(nodes::list)),
    Route::get("/api/v1/classrooms", whole!(classrooms::list)),
    Route::get("/api/v1/classrooms/{classroom_id}/agents", whole!(agents::list)),
    Route::get("/api/v1/classrooms/{classroom_id}/attendance", |admin, call| Box::pin(attendance::list(admin, call))),
    Route::get("/api/v1/classrooms/{classroom_id}/events", whole!(events::list)),
    Route::get("/api/v1/lessons/{lesson_id}/seats", whole!(seats::map)),
    Route::get("/api/v1/sessions", whole!(sessions::list)),
    Route::get("/api/v1/history", whole!(history::list)),
    Route::query("/api/v1/counters/agent", whole!(counters::count)).max_body(|_| counters::MAX_BODY),
    Route::post("/api/v1/publish", whole!(publish::publish)).max_body(publish::max_body),
    Route::post("/api/v1/disconnect", whole!(disconnect::disconnect)),
    Route::post("/api/v1/lessons/leave", whole!(lessons::leave)),
    Route::post("/api/v1/erase", whole!(erase::erase)),
];
