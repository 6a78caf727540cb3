import Foundation
import Testing

@testable import EmbeddedPostgres

@Suite struct TLSTests {
  @Test func verifyFullAcceptsOurAuthorityAndNoOther() async throws {
    let server: EmbeddedPostgres
    do {
      server = try await EmbeddedPostgres.start(.init(tls: true))
    } catch EmbeddedPostgresError.builtWithoutTLS(let directory) {
      try Test.cancel("The PostgreSQL in \(directory) has no TLS")
    }
    try await check(server)
    try await server.stop()
  }

  private func check(_ server: EmbeddedPostgres) async throws {
    let ssl = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    #expect(try await server.psql(ssl) == "t")
    let database = try await server.createDatabase("other")
    #expect(try await psql(ssl, url: database) == "t")

    let plain = "postgres://postgres@localhost:\(server.port)/postgres"
    try await fails(ssl, url: plain + "?sslmode=disable", saying: "pg_hba.conf")
    try await withTemporaryDirectory { (directory) async throws in
      let other = try await ThrowawayAuthority.make(in: directory, tools: ToolRunner(directory: directory, user: nil))
      let wrong = plain + "?sslmode=verify-full&sslrootcert=\(other.caFile.path)"
      try await fails(ssl, url: wrong, saying: "certificate verify failed")
    }
    let caFile = try #require(server.caFile)
    // The right authority, but a name the certificate does not have.
    let named = "host=elsewhere.example hostaddr=127.0.0.1 port=\(server.port) user=postgres dbname=postgres"
    try await fails(ssl, url: named + " sslmode=verify-full sslrootcert=\(caFile.path)", saying: "does not match")
  }

  private func fails(_ statement: String, url: String, saying reason: String) async throws {
    await #expect {
      try await psql(statement, url: url)
    } throws: {
      "\($0)".contains(reason)
    }
  }
}
