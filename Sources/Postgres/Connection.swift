import CLibPQ
import Foundation

/// One connection to PostgreSQL, used from one thread at a time. Calls block that thread; see ``Session`` for the owner.
///
/// Statements run through ``query(_:_:)`` are prepared on first use and named after their text, so that a transaction
/// pooler (pgbouncer), where names are shared between clients, meets the same statement under the same name.
package final class Connection {
  private let handle: OpaquePointer
  private var prepared: Set<String> = []
  /// Interrupts what this connection is doing, from any thread.
  package let canceller: Canceller

  /// Connects, or says why not. Blocks for at most the connect timeout per host.
  package init(_ configuration: ConnectionConfiguration) throws(PostgresError) {
    let pairs = configuration.parameters
    let keywords = pairs.map { strdup($0.0) }
    let values = pairs.map { strdup($0.1) }
    defer { (keywords + values).forEach { free($0) } }
    let keywordPointers = keywords.map { UnsafePointer($0) } + [nil]
    let valuePointers = values.map { UnsafePointer($0) } + [nil]
    guard let handle = PQconnectdbParams(keywordPointers, valuePointers, 1) else {
      throw PostgresError(.connection, message: "out of memory")
    }
    guard PQstatus(handle) == CONNECTION_OK, let cancel = PQgetCancel(handle) else {
      let message = String(cString: PQerrorMessage(handle)).trimmingCharacters(in: .whitespacesAndNewlines)
      PQfinish(handle)
      throw PostgresError(.connection, message: message.isEmpty ? "could not connect" : message)
    }
    self.handle = handle
    self.canceller = Canceller(cancel)
    PQsetNoticeProcessor(handle, { _, _ in }, nil)
    let timeout = configuration.statementTimeout.milliseconds
    try execute("SET statement_timeout = \(timeout)")
    for statement in configuration.setUp { try execute(statement) }
  }

  deinit { PQfinish(handle) }

  /// False once the connection broke; it does not come back.
  package var isUsable: Bool { PQstatus(handle) == CONNECTION_OK }

  /// As `server_version_num`: 150004 is 15.4.
  package var serverVersion: Int { Int(PQserverVersion(handle)) }

  /// Runs statements without parameters or rows, several if separated by semicolons.
  package func execute(_ sql: String) throws(PostgresError) {
    _ = try check(PQexec(handle, sql))
  }

  /// Runs one statement, prepared on first use. Rows come in binary format.
  package func query(_ sql: String, _ parameters: [Parameter] = []) throws(PostgresError) -> ResultSet {
    let name = try prepare(sql, parameters)
    do {
      return try run(parameters, binary: true) { PQexecPrepared(handle, name, $0, $1, $2, $3, $4) }
    } catch  where error.sqlState == "26000" {
      // A pooler gave us another server connection, which has not heard of the statement.
      prepared.remove(sql)
      guard PQtransactionStatus(handle) == PQTRANS_IDLE else { throw error }
      let name = try prepare(sql, parameters)
      return try run(parameters, binary: true) { PQexecPrepared(handle, name, $0, $1, $2, $3, $4) }
    }
  }

  /// Runs one statement once and returns every value as text, as psql would show it.
  package func queryText(_ sql: String, _ parameters: [Parameter] = []) throws(PostgresError) -> (
    columns: [String], rows: [[String?]]
  ) {
    var types = parameters.map(\.type)
    let result = try run(parameters, binary: false) {
      PQexecParams(handle, sql, $0, &types, $1, $2, $3, $4)
    }
    let columns = result.columns
    return (columns, (0..<result.count).map { row in columns.indices.map { result.string(row, $0) } })
  }

  /// Runs `body` in a transaction: commits if it returns, rolls back if it throws. Synchronous, so that nothing can be
  /// awaited while the transaction is open.
  ///
  /// Throws what `body` threw (after the rollback), or the error of BEGIN or COMMIT. If COMMIT fails with kind
  /// `connection`, whether it happened is unknown.
  package func transaction<Value>(
    isolation: String = "READ COMMITTED",
    _ body: (Connection) throws -> Value
  ) throws -> Value {
    try execute("BEGIN ISOLATION LEVEL \(isolation)")
    let value: Value
    do {
      value = try body(self)
    } catch {
      // If the rollback fails the connection is gone, and the server rolls back by itself.
      try? execute("ROLLBACK")
      throw error
    }
    try execute("COMMIT")
    return value
  }

  private func prepare(_ sql: String, _ parameters: [Parameter]) throws(PostgresError) -> String {
    let name = "martlet_\(String(sql.stableHash, radix: 16))"
    guard !prepared.contains(sql) else { return name }
    let types = parameters.map(\.type)
    do {
      _ = try check(PQprepare(handle, name, sql, Int32(types.count), types))
    } catch  where error.sqlState == "42P05" && PQtransactionStatus(handle) == PQTRANS_IDLE {
      // Prepared before by another client of the same pooled connection: same name, same text.
    }
    prepared.insert(sql)
    return name
  }

  private typealias Execute = (
    Int32, UnsafePointer<UnsafePointer<CChar>?>?, UnsafePointer<Int32>?, UnsafePointer<Int32>?, Int32
  ) -> OpaquePointer?

  /// Lays the parameters out in one buffer and calls libpq with pointers into it.
  private func run(_ parameters: [Parameter], binary: Bool, _ call: Execute) throws(PostgresError) -> ResultSet {
    let total = parameters.reduce(1) { $0 + ($1.bytes?.count ?? 0) }
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: total, alignment: 1)
    defer { buffer.deallocate() }
    var pointers: [UnsafePointer<CChar>?] = []
    var lengths: [Int32] = []
    var offset = 0
    for parameter in parameters {
      guard let bytes = parameter.bytes else {
        pointers.append(nil)
        lengths.append(0)
        continue
      }
      let target = UnsafeMutableRawBufferPointer(rebasing: buffer[offset...])
      target.copyBytes(from: bytes)
      pointers.append(UnsafePointer(target.baseAddress!.assumingMemoryBound(to: CChar.self)))
      lengths.append(Int32(bytes.count))
      offset += bytes.count
    }
    let formats = [Int32](repeating: 1, count: parameters.count)
    return try check(call(Int32(parameters.count), pointers, lengths, formats, binary ? 1 : 0))
  }

  private func check(_ result: OpaquePointer?) throws(PostgresError) -> ResultSet {
    guard let result else {
      throw PostgresError(.connection, message: String(cString: PQerrorMessage(handle)))
    }
    let status = PQresultStatus(result)
    if status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK || status == PGRES_EMPTY_QUERY {
      return ResultSet(result)
    }
    defer { PQclear(result) }
    func field(_ code: Int32) -> String? { PQresultErrorField(result, code).map { String(cString: $0) } }
    let sqlState = field(PG_DIAG_SQLSTATE) ?? ""
    throw PostgresError(
      isUsable ? .server : .connection,
      sqlState: sqlState,
      message: field(PG_DIAG_MESSAGE_PRIMARY)
        ?? String(cString: PQresultErrorMessage(result)).trimmingCharacters(in: .whitespacesAndNewlines),
      detail: field(PG_DIAG_MESSAGE_DETAIL),
      hint: field(PG_DIAG_MESSAGE_HINT),
      context: field(PG_DIAG_CONTEXT)
    )
  }
}

/// `PG_DIAG_*` are character literals in libpq's header, which Swift does not import.
private let PG_DIAG_SQLSTATE = Int32(UInt8(ascii: "C"))
private let PG_DIAG_MESSAGE_PRIMARY = Int32(UInt8(ascii: "M"))
private let PG_DIAG_MESSAGE_DETAIL = Int32(UInt8(ascii: "D"))
private let PG_DIAG_MESSAGE_HINT = Int32(UInt8(ascii: "H"))
private let PG_DIAG_CONTEXT = Int32(UInt8(ascii: "W"))

extension String {
  /// FNV-1a, 64 bits: the same in every process, unlike `hashValue`.
  fileprivate var stableHash: UInt64 {
    utf8.reduce(0xcbf2_9ce4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
  }
}

extension Duration {
  /// Whole milliseconds, rounded down.
  package var milliseconds: Int64 { components.seconds * 1000 + components.attoseconds / 1_000_000_000_000_000 }
}
