import CLibPQ

extension Connection {
  /// Runs one statement, prepared on first use. Rows come in binary format.
  package func query(_ sql: String, _ parameters: [Parameter] = []) throws(PostgresError) -> ResultSet {
    guard !isPooled, let statement = statements.statement(sql, parameters.map(\.type)) else {
      return try queryOnce(sql, parameters, binary: true)
    }
    do {
      try prepare(statement)
      return try run(parameters) { PQexecPrepared(handle, statement.name, $0, $1, $2, $3, 1) }
    } catch  where error.isLostStatement {
      // Its tables changed, somebody deallocated it, or there is a pooler that we had not noticed. Nothing was executed.
      statements.lose(statement, stillThere: error.sqlState != "26000")
      if error.sqlState == "42P05" { isPooled = true }
      guard PQtransactionStatus(handle) == PQTRANS_IDLE else { throw error }
      return try queryOnce(sql, parameters, binary: true)
    }
  }

  /// Parses, plans and runs a statement in one go, under no name.
  func queryOnce(_ sql: String, _ parameters: [Parameter], binary: Bool) throws(PostgresError) -> ResultSet {
    try checkText(sql)
    let types = parameters.map(\.type)
    return try run(parameters) { PQexecParams(handle, sql, $0, types, $1, $2, $3, binary ? 1 : 0) }
  }

  private func prepare(_ statement: PreparedStatements.Statement) throws(PostgresError) {
    guard !statements.isPrepared(statement) else { return }
    try checkText(statement.sql)
    if statements.mustDeallocate(statement) { try execute("DEALLOCATE \(statement.name)") }
    _ = try call { PQprepare(handle, statement.name, statement.sql, Int32(statement.types.count), statement.types) }
    statements.prepared(statement)
  }

  private typealias Execute = (
    Int32, UnsafePointer<UnsafePointer<CChar>?>?, UnsafePointer<Int32>?, UnsafePointer<Int32>?
  ) -> OpaquePointer?

  /// PostgreSQL's limit on a message, and so on all parameters of a statement together, less room for the rest of it.
  static var maxParameterBytes: Int { (1 << 30) - (1 << 20) }

  /// Lays the parameters out in one buffer and calls libpq with pointers into it.
  private func run(_ parameters: [Parameter], _ execute: Execute) throws(PostgresError) -> ResultSet {
    let total = parameters.reduce(0) { $0 + ($1.bytes?.count ?? 0) }
    guard total <= Self.maxParameterBytes else {
      // The server would end the connection.
      throw PostgresError(
        .server,
        sqlState: "54000",
        message: "the statement's parameters have \(total) bytes; PostgreSQL takes 1 GB"
      )
    }
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: total + 1, alignment: 1)
    defer { buffer.deallocate() }
    var pointers: [UnsafePointer<CChar>?] = []
    var lengths: [Int32] = []
    pointers.reserveCapacity(parameters.count)
    lengths.reserveCapacity(parameters.count)
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
    return try call { execute(Int32(clamping: parameters.count), pointers, lengths, formats) }
  }
}
