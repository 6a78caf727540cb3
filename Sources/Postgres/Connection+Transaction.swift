import CLibPQ

extension Connection {
  /// Runs `body` in a transaction: commits if it returns, rolls back if it throws. Synchronous, so that nothing can be
  /// awaited while the transaction is open.
  ///
  /// Throws what `body` threw (after the rollback), or the error of BEGIN or COMMIT. ``PostgresError/isCommitUnknown``
  /// marks the one case where the transaction may have happened all the same. A transaction in which a statement failed
  /// is not committed even if `body` made light of the error: that throws SQLSTATE 25P02.
  ///
  /// - Parameter isolation: what follows ISOLATION LEVEL, such as `SERIALIZABLE READ ONLY`. Never from outside.
  package func transaction<Value>(
    isolation: String = "READ COMMITTED",
    _ body: (Connection) throws -> Value
  ) throws -> Value {
    let isPlain = isolation.unicodeScalars.allSatisfy { $0.properties.isAlphabetic || $0 == " " || $0 == "," }
    precondition(isPlain, "transaction: not an isolation level")
    guard !isInTransaction else {
      // BEGIN would only warn, and the inner COMMIT would end the outer transaction.
      throw PostgresError(.server, sqlState: "25001", message: "there is already a transaction in progress")
    }
    do {
      try execute("BEGIN ISOLATION LEVEL \(isolation)")
      let value = try body(self)
      try commit()
      return value
    } catch {
      rollBack()
      throw error
    }
  }

  private func commit() throws(PostgresError) {
    guard isUsable else {
      throw PostgresError(.connection, message: "the connection broke before COMMIT; the transaction was rolled back")
    }
    let status = PQtransactionStatus(handle)
    guard status == PQTRANS_INTRANS || status == PQTRANS_INERROR else {
      throw PostgresError(.server, sqlState: "25P01", message: "the transaction was ended from within")
    }
    let result: ResultSet
    do {
      result = try call { PQexec(handle, "COMMIT") }
    } catch {
      var error = error
      error.isCommitUnknown = error.kind == .connection
      throw error
    }
    // The server answers COMMIT in a failed transaction with success and the tag ROLLBACK.
    guard result.commandTag == "COMMIT" else {
      throw PostgresError(
        .server,
        sqlState: "25P02",
        message: "the transaction was rolled back, because a statement in it had failed"
      )
    }
  }

  private func rollBack() {
    guard isUsable, isInTransaction else { return }
    do {
      _ = try call(evenIfCancelled: true) { PQexec(handle, "ROLLBACK") }
    } catch {
      // The error that led here matters more. The server rolls back when it loses the connection.
      isSpoilt = true
    }
  }
}
