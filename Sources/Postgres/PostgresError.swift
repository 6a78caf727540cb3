/// What went wrong between us and PostgreSQL: a code, a message safe to show, and what can be done about it.
///
/// Descriptions never contain parameters, payloads, or the connection string. ``detail`` may quote a row, so it is kept
/// apart and not part of ``description``.
package struct PostgresError: Error, Sendable, Equatable {
  package enum Kind: Sendable, Equatable {
    /// No connection could be made, or it broke. A statement that was running outside a transaction may have taken
    /// effect; of a transaction see ``PostgresError/isCommitUnknown``.
    case connection
    /// The server, or libpq before it, refused a statement. ``sqlState`` says why.
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
  /// The function in PostgreSQL's source that raised the error.
  package var routine: String?
  /// COMMIT was sent and no answer came: whether the transaction happened is unknown. All other errors of a transaction
  /// mean that it did not.
  package var isCommitUnknown = false

  package init(
    _ kind: Kind,
    sqlState: String = "",
    message: String,
    detail: String? = nil,
    hint: String? = nil,
    context: String? = nil,
    routine: String? = nil
  ) {
    self.kind = kind
    self.sqlState = sqlState
    self.message = message
    self.detail = detail
    self.hint = hint
    self.context = context
    self.routine = routine
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
