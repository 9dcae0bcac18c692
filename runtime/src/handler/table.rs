//! The table of a gateway's events. It has each named event with its handler, and the function that creates the
//! handler's dependencies.
//!
//! Invariant: a table needs no running gateway, so its events are known before any backend is connected.
use std::{collections::BTreeSet, time::Duration};

use rollcall_schema::ack::Reply;
use serde::de::DeserializeOwned;

use crate::handler::{
    handlers::Handlers,
    outside::{Admit, Enter, Move, Outside},
    resources::Resources,
    traits::{Connect, Disconnect, Handler},
};

/// The events of a gateway. Each handler's dependencies are created by a function from the [`Resources`], which is
/// called once, when the gateway starts.
///
/// ```
/// use rollcall_runtime::{HandlerError, Resources, Rooms, Session, Table};
/// use rollcall_schema::AckError;
///
/// /// What the handler needs of the resources.
/// struct Deps {
///     rooms: Rooms,
/// }
///
/// impl Deps {
///     fn new(resources: &Resources) -> Self {
///         Self { rooms: resources.rooms.clone() }
///     }
/// }
///
/// #[derive(serde::Deserialize)]
/// struct Where {}
///
/// #[derive(serde::Serialize)]
/// struct Here {
///     offset: u64,
/// }
///
/// /// How far the stream of events is.
/// async fn handle(deps: &Deps, session: &mut Session, _request: Where) -> Result<Here, HandlerError> {
///     session.lesson().ok_or(AckError::NotInALesson)?;
///     Ok(Here { offset: deps.rooms.end().await.offset.0 })
/// }
///
/// fn with_where(stock: Table) -> Table {
///     stock.on("where", Deps::new, handle)
/// }
/// ```
pub struct Table {
    events: BTreeSet<&'static str>,
    bind: Box<dyn FnOnce(&Resources) -> Handlers>,
}

impl Table {
    /// Creates a table with the two handlers that every gateway has: the handler of the first event, and the handler of
    /// the end of a connection.
    pub fn new<C, D>(
        (first_event, connect_deps, connect): (
            &'static str,
            impl FnOnce(&Resources) -> C + 'static,
            impl for<'a> Connect<'a, C> + 'static,
        ),
        (disconnect_deps, disconnect): (
            impl FnOnce(&Resources) -> D + 'static,
            impl for<'a> Disconnect<'a, D> + 'static,
        ),
    ) -> Self
    where
        C: Send + Sync + 'static,
        D: Send + Sync + 'static,
    {
        Self {
            events: BTreeSet::from([first_event]),
            bind: Box::new(move |resources| {
                let connect = (first_event, connect_deps(resources), connect);
                Handlers::new(connect, (disconnect_deps(resources), disconnect))
            }),
        }
    }

    /// Adds an event with its name in the protocol, the function that creates its dependencies, and its handler.
    #[must_use]
    pub fn on<D, R, A, H>(self, name: &'static str, deps: impl FnOnce(&Resources) -> D + 'static, handler: H) -> Self
    where
        D: Send + Sync + 'static,
        R: DeserializeOwned + Send + 'static,
        A: Into<Reply> + Send + 'static,
        H: for<'a> Handler<'a, D, R, A> + 'static,
    {
        self.add(name, deps, handler, None)
    }

    /// Adds an event whose handler may run for this long, whatever `ROLLCALL_HANDLER_TIMEOUT` says.
    #[must_use]
    pub fn on_within<D, R, A, H>(
        self,
        name: &'static str,
        timeout: Duration,
        deps: impl FnOnce(&Resources) -> D + 'static,
        handler: H,
    ) -> Self
    where
        D: Send + Sync + 'static,
        R: DeserializeOwned + Send + 'static,
        A: Into<Reply> + Send + 'static,
        H: for<'a> Handler<'a, D, R, A> + 'static,
    {
        self.add(name, deps, handler, Some(timeout))
    }

    fn add<D, R, A, H>(
        mut self,
        name: &'static str,
        deps: impl FnOnce(&Resources) -> D + 'static,
        handler: H,
        timeout: Option<Duration>,
    ) -> Self
    where
        D: Send + Sync + 'static,
        R: DeserializeOwned + Send + 'static,
        A: Into<Reply> + Send + 'static,
        H: for<'a> Handler<'a, D, R, A> + 'static,
    {
        self.events.insert(name);
        let bind = self.bind;
        Self {
            bind: Box::new(move |resources| bind(resources).on(name, deps(resources), handler, timeout)),
            events: self.events,
        }
    }

    /// Adds the functions for clients without a classroom: the function that checks their token, and the event with
    /// which they enter a classroom and later move to another.
    #[must_use]
    pub fn outside<C, D, R, A>(
        self,
        (admit_deps, admit): (impl FnOnce(&Resources) -> C + 'static, impl for<'a> Admit<'a, C> + 'static),
        (event, enter_deps, enter, change): (
            &'static str,
            impl FnOnce(&Resources) -> D + 'static,
            impl for<'a> Enter<'a, D, R, A> + 'static,
            impl for<'a> Move<'a, D, R, A> + 'static,
        ),
    ) -> Self
    where
        C: Send + Sync + 'static,
        D: Send + Sync + 'static,
        R: DeserializeOwned + Send + 'static,
        A: Into<Reply> + Send + 'static,
    {
        let bind = self.bind;
        let bind = move |resources: &Resources| {
            let admit = (admit_deps(resources), admit);
            bind(resources).outside(Outside::new(admit, (event, enter_deps(resources), enter, change)))
        };
        Self { bind: Box::new(bind), ..self }
    }

    /// Keeps the value of this parameter of the connection's URL until connect, as
    /// [`ConnectContext::url_parameter`](crate::ConnectContext::url_parameter).
    #[must_use]
    pub fn url_parameter(self, name: &'static str) -> Self {
        let bind = self.bind;
        Self { bind: Box::new(move |resources| bind(resources).url_parameter(name)), ..self }
    }

    /// Returns the names of the events, including the first event.
    #[must_use]
    pub fn events(&self) -> &BTreeSet<&'static str> {
        &self.events
    }

    /// Creates every handler's dependencies.
    #[must_use]
    pub(crate) fn bind(self, resources: &Resources) -> Handlers {
        (self.bind)(resources)
    }
}
