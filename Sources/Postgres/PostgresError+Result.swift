import CLibPQ
import Foundation

extension PostgresError {
  /// From a result that says that the statement failed.
  ///
  /// - Parameter isConnected: libpq's view; the server announces the end of a connection before it closes it.
  init(result: OpaquePointer, isConnected: Bool) {
    func field(_ code: Character) -> String? {
      PQresultErrorField(result, Int32(code.asciiValue!)).map { String(cString: $0) }
    }
    let isFatal = field(Field.severity).map { $0 == "FATAL" || $0 == "PANIC" } ?? false
    // A failure without SQLSTATE is libpq's own: the server never answered, whatever PQstatus says at that moment.
    let sqlState = field(Field.sqlState)
    let isUnanswered = sqlState == nil && PQresultStatus(result) == PGRES_FATAL_ERROR
    self.init(
      isConnected && !isFatal && !isUnanswered ? .server : .connection,
      sqlState: sqlState ?? "",
      message: field(Field.message) ?? Self.oneLine(String(cString: PQresultErrorMessage(result))),
      detail: field(Field.detail),
      hint: field(Field.hint),
      context: field(Field.context),
      routine: field(Field.routine)
    )
    if message.isEmpty { message = Self.unsupported(PQresultStatus(result)) }
    hideValues()
  }

  /// Class 22 (data exceptions) quotes the value it does not like: `invalid input syntax for type integer: "…"`. Such a
  /// message moves to ``detail``. What PL/pgSQL code raises was worded by its author.
  private mutating func hideValues() {
    guard sqlState.hasPrefix("22"), routine != "exec_stmt_raise" else { return }
    guard let first = message.firstIndex(of: "\""), let last = message.lastIndex(of: "\""), first < last else { return }
    detail = [message, detail].compactMap { $0 }.joined(separator: " ")
    message.replaceSubrange(message.index(after: first)..<last, with: "…")
  }

  /// libpq breaks its lines and indents them; of several hosts each has its own.
  static func oneLine(_ text: String) -> String {
    text.split(separator: "\n").map { line in
      line.hasPrefix("\t") ? " " + line.dropFirst() : "; " + line
    }.joined().trimmingPrefix("; ").trimmingCharacters(in: .whitespaces)
  }

  private static func unsupported(_ status: ExecStatusType) -> String {
    switch status {
    case PGRES_COPY_IN, PGRES_COPY_OUT, PGRES_COPY_BOTH: "COPY to and from the client is not supported"
    default: "unexpected answer from the server"
    }
  }

  /// `PG_DIAG_*` are character literals in libpq's header, which Swift does not import.
  private enum Field {
    static let severity: Character = "V"
    static let sqlState: Character = "C"
    static let message: Character = "M"
    static let detail: Character = "D"
    static let hint: Character = "H"
    static let context: Character = "W"
    static let routine: Character = "R"
  }
}
