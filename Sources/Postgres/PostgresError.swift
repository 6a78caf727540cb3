/// What went wrong between us and PostgreSQL: a code, a message safe to show, and what can be done about it.
///
/// Descriptions never contain parameters, payloads, or the connection string. ``detail`` may quote a row, so it is kept
/// apart and not part of ``description``.
package struct PostgresError: Error, Sendable, Equatable {
  package enum Kind: Sendable, Equatable {
    /// No connection could be made, or it broke. What ran last may or may not have been committed.
    case connection
    /// The server refused a statement. ``sqlState`` says why.
    case server
    /// The answer has another shape than the statement promises.
    case decoding
  }

  package var kind: Kind
  /// Five characters, see <https://www.postgresql.org/docs/current/errcodes-appendix.html>; empty if there is none.
  package var sqlState: String
  package var message: String
  package var detail: String?
  package var hint: String?
  /// The server's PL/pgSQL call stack, for logs at debug level.
  package var context: String?

  package init(
    _ kind: Kind,
    sqlState: String = "",
    message: String,
    detail: String? = nil,
    hint: String? = nil,
    context: String? = nil
  ) {
    self.kind = kind
    self.sqlState = sqlState
    self.message = message
    self.detail = detail
    self.hint = hint
    self.context = context
  }
}

extension PostgresError {
  /// What a caller in a loop should do.
  package enum Remedy: Sendable, Equatable {
    /// The same statement on the same connection may work in a moment.
    case retry
    /// A new connection may work: this one is gone, or leads to a server that is stopping, starting, full, or read-only
    /// after a failover.
    case reconnect
    /// Trying again will give the same answer.
    case giveUp
  }

  /// The one place where retryability is decided.
  package var remedy: Remedy {
    guard kind != .connection else { return .reconnect }
    guard kind == .server else { return .giveUp }
    switch sqlState {
    case "57P01", "57P02", "57P03", "57P05", "25006", "53300", "08P01": return .reconnect
    // serialization failure, deadlock, lock timeout, statement timeout or cancel, prepared statement lost (a pooler)
    case "40001", "40P01", "55P03", "57014", "26000", "0A000": return .retry
    default: break
    }
    switch sqlState.prefix(2) {
    case "08": return .reconnect
    case "53", "58": return .retry  // out of disk or memory, I/O: operators mend those while we wait
    case "XX": return .retry
    default: return .giveUp
    }
  }
}

extension PostgresError: CustomStringConvertible {
  package var description: String {
    var text = message
    if !sqlState.isEmpty { text += " (SQLSTATE \(sqlState))" }
    if let hint { text += " Hint: \(hint)" }
    return text
  }
}
