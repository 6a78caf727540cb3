import Foundation

/// A new cluster on disk, not running yet, and what is needed to run it.
struct Cluster: Sendable {
  let directory: URL
  let binaries: PostgresBinaries
  let version: String
  let tools: ToolRunner
  let keeper: Keeper
  let caFile: URL?

  static func create(_ options: EmbeddedPostgres.Options) async throws -> Cluster {
    let user = try ServiceUser.ifRoot()
    let directory = try makeDirectory(in: options.directory, owner: user)
    let keeper = try Keeper(directory: directory)
    do {
      return try await create(options, ToolRunner(directory: directory, user: user), keeper)
    } catch {
      await keeper.finish()
      throw error
    }
  }

  private static func create(
    _ options: EmbeddedPostgres.Options,
    _ tools: ToolRunner,
    _ keeper: Keeper
  ) async throws -> Cluster {
    let binaries = try await PostgresBinaries.locate(explicit: options.binaries, tools: tools)
    // Run as the server's user: a directory that user cannot enter shows here, with a clear message.
    let printed = try await tools.runAsOwner([binaries.postgres, "--version"], announcing: keeper)
    let data = tools.directory.appendingPathComponent("data")
    let locale = hasUnicodeLocale() ? ["--locale=C.UTF-8", "--lc-collate=C"] : ["--locale=C"]
    try await tools.runAsOwner(
      [binaries.initdb, "-D", data.path, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"] + locale,
      announcing: keeper
    )
    var caFile: URL?
    if options.tls {
      // Without this the server would only say that it cannot set `ssl`.
      let library = try await tools.runAsOwner(
        [binaries.postgres, "-D", data.path, "-C", "ssl_library"],
        announcing: keeper
      )
      guard library.contains("OpenSSL") else { throw EmbeddedPostgresError.builtWithoutTLS(binaries.directory) }
      let authority = try await ThrowawayAuthority.make(in: tools.directory, tools: tools)
      try tools.user?.own(authority.keyFile)
      try tools.user?.own(authority.certificateFile)
      caFile = authority.caFile
    }
    return Cluster(
      directory: tools.directory,
      binaries: binaries,
      version: PostgresBinaries.version(fromOutput: printed),
      tools: tools,
      keeper: keeper,
      caFile: caFile
    )
  }

  /// Written for every attempt to start, as the port may change between two.
  func writeConfiguration(port: UInt16, _ options: EmbeddedPostgres.Options) throws {
    let data = directory.appendingPathComponent("data")
    let configuration = ServerConfiguration(
      port: port,
      directory: directory,
      tls: caFile != nil,
      fsync: options.fsync,
      settings: options.settings
    )
    // postgresql.auto.conf is read last, but ALTER SYSTEM rewrites it; so ours is a file that the main one includes.
    try replace(data.appendingPathComponent("martlet.conf"), with: configuration.text())
    let main = data.appendingPathComponent("postgresql.conf")
    let text = try String(contentsOf: main, encoding: .utf8)
    let include = "include 'martlet.conf'\n"
    if !text.hasSuffix(include) { try replace(main, with: text + "\n" + include) }
    if caFile != nil {
      try replace(data.appendingPathComponent("pg_hba.conf"), with: ServerConfiguration.accessWithTLSOnly)
    }
  }

  private func replace(_ file: URL, with text: String) throws {
    try Data(text.utf8).write(to: file)
    try tools.user?.own(file)
  }

  private static let name = "martlet-pg-XXXXXX"

  /// The address of a unix socket has room for 107 bytes.
  private static func fits(_ directory: String) -> Bool { (directory + "/.s.PGSQL.65535").utf8.count <= 107 }

  private static func temporaryDirectory(_ owner: ServiceUser?) -> URL {
    // Root's TMPDIR may be closed to the user the server runs as; /tmp never is.
    if owner == nil, let own = ProcessInfo.processInfo.environment["TMPDIR"], own.hasPrefix("/"), fits("\(own)/\(name)")
    {
      return URL(fileURLWithPath: own)
    }
    return URL(fileURLWithPath: "/tmp")
  }

  private static func makeDirectory(in parent: URL?, owner: ServiceUser?) throws -> URL {
    let template = (parent ?? temporaryDirectory(owner)).appendingPathComponent(name).path
    guard fits(template) else { throw EmbeddedPostgresError.socketPathTooLong(template) }
    var path = Array(template.utf8CString)
    guard mkdtemp(&path) != nil else {
      throw EmbeddedPostgresError.systemCall("making a directory like \(template)", errno: errno)
    }
    let directory = URL(fileURLWithPath: String(decoding: path.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self))
    try owner?.own(directory)
    return directory
  }

  private static func hasUnicodeLocale() -> Bool {
    guard let locale = newlocale(1 << LC_CTYPE, "C.UTF-8", nil) else { return false }
    freelocale(locale)
    return true
  }
}
