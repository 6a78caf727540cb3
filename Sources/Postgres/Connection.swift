import CLibPQ
import Foundation

/// One connection to PostgreSQL, used from one thread at a time. Calls block that thread; see ``Session`` for the owner.
///
/// Statements run through ``query(_:_:)`` are prepared on first use. Behind a transaction pooler (pgbouncer), where the
/// next statement may meet another server connection, they are sent whole each time instead. Such a pooler also keeps
/// what `SET` does to itself: there, give statement timeouts to the role (`ALTER ROLE … SET statement_timeout`).
package final class Connection {
  let handle: OpaquePointer
  /// Interrupts what this connection is doing, from any thread.
  package let canceller: Canceller
  var statements = PreparedStatements()
  /// Whether a pooler hands our statements to server connections that it shares between clients.
  package internal(set) var isPooled = false
  /// Left in a state that nobody can work with, though libpq thinks well of it.
  var isSpoilt = false

  /// Connects, or says why not. Blocks for at most the connect timeout per host.
  package init(_ configuration: ConnectionConfiguration) throws(PostgresError) {
    let pairs = try configuration.checkedParameters()
    let keywords = pairs.map { strdup($0.0) }
    let values = pairs.map { strdup($0.1) }
    defer { for string in keywords + values { free(string) } }
    let keywordPointers = keywords.map { UnsafePointer($0) } + [nil]
    let valuePointers = values.map { UnsafePointer($0) } + [nil]
    guard let handle = PQconnectdbParams(keywordPointers, valuePointers, 1) else {
      throw PostgresError(.connection, message: "out of memory")
    }
    guard PQstatus(handle) == CONNECTION_OK, let cancel = PQgetCancel(handle) else {
      let message = PostgresError.oneLine(String(cString: PQerrorMessage(handle)))
      let hint = PQconnectionNeedsPassword(handle) != 0 ? ConnectionConfiguration.passwordHint : nil
      PQfinish(handle)
      throw PostgresError(.connection, message: message.isEmpty ? "could not connect" : message, hint: hint)
    }
    self.handle = handle
    self.canceller = Canceller(cancel)
    PQsetNoticeProcessor(handle, { _, _ in }, nil)
    let timeout = configuration.statementTimeoutMilliseconds
    let process = try call {
      PQexec(self.handle, "SET statement_timeout = \(timeout); SELECT pg_catalog.pg_backend_pid()")
    }
    // A pooler answers for many servers, so the process that it announced is one it made up.
    isPooled = process.string(0, 0) != String(PQbackendPID(handle))
    for statement in configuration.setUp { try execute(statement) }
  }

  deinit { PQfinish(handle) }

  /// False once the connection broke; it does not come back.
  package var isUsable: Bool { !isSpoilt && PQstatus(handle) == CONNECTION_OK }

  /// Whether a transaction is open, failed or not.
  package var isInTransaction: Bool {
    let status = PQtransactionStatus(handle)
    return status == PQTRANS_INTRANS || status == PQTRANS_INERROR
  }

  /// Looks, without waiting, whether the server closed the connection while it was idle.
  package func isAlive() -> Bool {
    while isUsable {
      var descriptor = pollfd(fd: PQsocket(handle), events: Int16(POLLIN), revents: 0)
      guard poll(&descriptor, 1, 0) > 0 else { return true }
      // Reads what the server said in parting, then the end of the stream, which changes the status.
      guard PQconsumeInput(handle) == 1 else { return false }
    }
    return false
  }

  /// As `server_version_num`: 150004 is 15.4.
  package var serverVersion: Int { Int(PQserverVersion(handle)) }

  /// The socket, for tests of its options.
  var socket: Int32 { PQsocket(handle) }

  /// Runs statements without parameters or rows, several if separated by semicolons.
  package func execute(_ sql: String) throws(PostgresError) {
    try checkText(sql)
    _ = try call { PQexec(handle, sql) }
  }

  /// Runs one statement once and returns every value as text, as psql would show it.
  package func queryText(_ sql: String, _ parameters: [Parameter] = []) throws(PostgresError) -> (
    columns: [String], rows: [[String?]]
  ) {
    let result = try queryOnce(sql, parameters, binary: false)
    let columns = result.columns
    return (columns, (0..<result.count).map { row in columns.indices.map { result.string(row, $0) } })
  }

  /// Calls libpq unless a cancellation came first, and turns what it returns into rows or an error.
  func call(evenIfCancelled: Bool = false, _ body: () -> OpaquePointer?) throws(PostgresError) -> ResultSet {
    guard canceller.begin(evenIfRefusing: evenIfCancelled) else {
      throw PostgresError(.server, sqlState: "57014", message: "the statement was cancelled before it began")
    }
    let result = body()
    canceller.end()
    guard let result else {
      // libpq did not send it: the connection is broken, or the call is one that libpq refuses.
      let message = PostgresError.oneLine(String(cString: PQerrorMessage(handle)))
      throw PostgresError(isUsable ? .server : .connection, message: message)
    }
    let status = PQresultStatus(result)
    if status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK || status == PGRES_EMPTY_QUERY {
      return ResultSet(result)
    }
    defer { PQclear(result) }
    let error = PostgresError(result: result, isConnected: isUsable)
    if error.kind == .connection { isSpoilt = true }
    throw error
  }

  /// libpq takes C strings: a statement would silently end at its first zero byte.
  func checkText(_ sql: String) throws(PostgresError) {
    guard !sql.utf8.contains(0) else {
      throw PostgresError(.server, sqlState: "42601", message: "the statement contains a zero byte")
    }
  }
}

extension Duration {
  /// Whole milliseconds, rounded towards zero; the nearest that 64 bits hold.
  package var milliseconds: Int64 {
    let (seconds, attoseconds) = components
    let (product, overflow) = seconds.multipliedReportingOverflow(by: 1000)
    let (sum, overflowed) = product.addingReportingOverflow(attoseconds / 1_000_000_000_000_000)
    return overflow || overflowed ? (seconds < 0 ? .min : .max) : sum
  }
}
