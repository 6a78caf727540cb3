import Foundation

extension EmbeddedPostgres {
  /// Throws this server's data away and makes it a hot standby of another, on the port it has. The same again makes a
  /// standby of a primary that has lost its place.
  package func follow(_ primary: EmbeddedPostgres) async throws {
    let configuration = dataDirectory.appendingPathComponent("martlet.conf")
    let settings = try Data(contentsOf: configuration)
    try await halt()
    try FileManager.default.removeItem(at: dataDirectory)
    try await tools.runAsOwner(
      [
        binaries.client("pg_basebackup"), "-h", "127.0.0.1", "-p", "\(primary.port)", "-U", "postgres",
        "-D", dataDirectory.path, "-R", "-c", "fast", "--no-sync",
      ],
      announcing: keeper
    )
    try settings.write(to: configuration)
    try tools.user?.own(configuration)
    try await resume()
  }
}
