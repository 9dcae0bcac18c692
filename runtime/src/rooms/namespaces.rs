//! The namespaces of Socket.IO that clients may connect to.
use std::sync::Arc;

/// The namespaces, in the settings' order. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Namespaces(Arc<[Box<str>]>);

/// One of the namespaces, by its place in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Namespace(u8);

impl Namespaces {
    /// The most that there may be.
    pub const MAX: usize = 64;

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The namespace of this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Namespace> {
        let place = self.0.iter().position(|known| **known == *name)?;
        u8::try_from(place).ok().map(Namespace)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self, namespace: Namespace) -> &str {
        self.0.get(namespace.place()).map_or("/", |name| name)
    }
}

impl Namespace {
    /// The one that a client is in before it has said which.
    pub const FIRST: Self = Self(0);

    /// Its place among them.
    #[must_use]
    pub fn place(self) -> usize {
        self.0.into()
    }
}

impl FromIterator<Box<str>> for Namespaces {
    /// The first [`Namespaces::MAX`] of these.
    fn from_iter<I: IntoIterator<Item = Box<str>>>(names: I) -> Self {
        Self(names.into_iter().take(Self::MAX).collect())
    }
}
