//! Numbers instead of paths.

/// The receiver's side of [`Target`](super::Target): what each number stands for.
#[derive(Debug, Clone)]
pub struct Aliases<T> {
    bound: Vec<T>,
    count_max: u32,
}

/// A number that its sender should not have used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AliasError {
    /// Nothing was bound to it.
    #[error("alias {0} stands for nothing")]
    Unknown(u32),
    /// It leaves a gap or is over the limit.
    #[error("alias {0} cannot be given: {1} are, of at most {2}")]
    OutOfTurn(u32, u32, u32),
}

impl<T> Aliases<T> {
    /// Room for numbers below `count_max`; takes memory only as they are given.
    pub fn new(count_max: u32) -> Self {
        Aliases { bound: Vec::new(), count_max }
    }

    /// Binds a number, anew or for the first time.
    pub fn bind(&mut self, alias: u32, what: T) -> Result<&T, AliasError> {
        let given = self.bound.len() as u32;
        if alias > given || alias >= self.count_max {
            return Err(AliasError::OutOfTurn(alias, given, self.count_max));
        }
        let place = alias as usize;
        if alias == given {
            self.bound.push(what);
        } else {
            self.bound[place] = what;
        }
        Ok(&self.bound[place])
    }

    /// What a number stands for.
    pub fn get(&self, alias: u32) -> Result<&T, AliasError> {
        self.bound.get(alias as usize).ok_or(AliasError::Unknown(alias))
    }
}
