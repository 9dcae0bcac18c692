//! Requests that only the console's pages send. For everything else the pages use the server API. These requests change
//! together with the pages, so `openapi.json` does not describe them.
mod acts;
mod demo;
mod me;
mod now;

use super::{reply::streamed, route::Route};

/// The requests, one line for each path.
pub(super) const ROUTES: &[Route] = &[
    Route::get("/api/console/me", |admin, call| Box::pin(async move { me::show(admin, call).await.map(streamed) })),
    Route::get("/api/console/now", |admin, call| Box::pin(now::stream(admin, call))),
    Route::get("/api/console/acts", |admin, call| Box::pin(async move { acts::list(admin, call).await.map(streamed) })),
    Route::post("/api/console/demo", |admin, call| {
        Box::pin(async move { demo::tokens(admin, call).await.map(streamed) })
    }),
];
