//! The numbers that stand for something: what `call` answers, what the host's functions answer, HTTP methods.

/// What a host function that has nothing but success to tell answers on success.
pub const OK: i32 = 0;
/// What this host answers on failure there. A guest takes every number but [`OK`] as failure.
pub const FAILED: i32 = 1;

/// What the entry point `call` answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallResult {
    /// 0: the workflow has done its work.
    Done,
    /// 1: the workflow returned an error.
    Error,
    /// 2: the workflow panicked.
    Panic,
}

impl CallResult {
    /// All of them, by their code.
    pub const ALL: [Self; 3] = [Self::Done, Self::Error, Self::Panic];

    /// The number in the ABI.
    pub const fn code(self) -> i32 {
        self as i32
    }

    /// What that number means; `None` for one without a meaning.
    pub fn from_code(code: i32) -> Option<Self> {
        usize::try_from(code).ok().and_then(|code| Self::ALL.get(code).copied())
    }
}

/// The method of `u_writeback_http`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HttpMethod {
    /// 0.
    Get,
    /// 1.
    Post,
    /// 2.
    Put,
    /// 3.
    Delete,
}

impl HttpMethod {
    /// All of them, by their code.
    pub const ALL: [Self; 4] = [Self::Get, Self::Post, Self::Put, Self::Delete];

    /// The number in the ABI.
    pub const fn code(self) -> i32 {
        self as i32
    }

    /// What that number means; `None` for one without a meaning.
    pub fn from_code(code: i32) -> Option<Self> {
        usize::try_from(code).ok().and_then(|code| Self::ALL.get(code).copied())
    }

    /// The method's name in HTTP.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_contract() {
        assert_eq!([0, 1, 2].map(CallResult::from_code), CallResult::ALL.map(Some));
        assert_eq!(CallResult::ALL.map(CallResult::code), [0, 1, 2]);
        assert_eq!([0, 1, 2, 3].map(HttpMethod::from_code), HttpMethod::ALL.map(Some));
        assert_eq!(HttpMethod::ALL.map(HttpMethod::code), [0, 1, 2, 3]);
        assert_eq!(HttpMethod::ALL.map(HttpMethod::as_str), ["GET", "POST", "PUT", "DELETE"]);
        for code in [-1, 4, i32::MIN, i32::MAX] {
            assert_eq!(HttpMethod::from_code(code), None);
            assert_eq!(CallResult::from_code(code), None);
        }
        assert_eq!(CallResult::from_code(3), None);
    }
}
