//! The namespaces of Socket.IO that clients may connect to.
use std::sync::Arc;

/// The namespaces in the order of the settings. They are cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Namespaces(Arc<[Box<str>]>);

/// A namespace, by its place in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Namespace(u8);

impl Namespaces {
    /// The maximum number of namespaces.
    pub const MAX: usize = 64;

    /// Returns how many namespaces there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the namespace with this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Namespace> {
        let place = self.0.iter().position(|known| **known == *name)?;
        u8::try_from(place).ok().map(Namespace)
    }

    /// Returns the namespace's name.
    #[must_use]
    pub fn name(&self, namespace: Namespace) -> &str {
        self.0.get(namespace.place()).map_or("/", |name| name)
    }
}

impl Namespace {
    /// The namespace of a client that has not named one yet.
    pub const FIRST: Self = Self(0);

    /// Returns the namespace's place in the list.
    #[must_use]
    pub fn place(self) -> usize {
        self.0.into()
    }
}

impl FromIterator<Box<str>> for Namespaces {
    /// Takes the first [`Namespaces::MAX`] names.
    fn from_iter<I: IntoIterator<Item = Box<str>>>(names: I) -> Self {
        Self(names.into_iter().take(Self::MAX).collect())
    }
}
