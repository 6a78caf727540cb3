/// Why the throwaway server could not do what was asked, with the remedy where we know one.
package enum EmbeddedPostgresError: Error, CustomStringConvertible {
  case binariesNotFound(searched: [String])
  case socketPathTooLong(String)
  case noServiceUser
  case builtWithoutTLS(String)
  case noFreePort
  case invalidSetting(String)
  case systemCall(String, errno: Int32)
  case toolFailed(String, ExitStatus, output: String)
  case toolTimedOut(String, after: Duration)
  case portTaken(UInt16, log: String)
  case startFailed(ExitStatus, log: String)
  case startTimedOut(after: Duration, log: String)
  case stopTimedOut(EmbeddedPostgres.StopMode?, after: Duration)

  package var description: String {
    switch self {
    case .binariesNotFound(let searched):
      """
      No PostgreSQL server found (looked for postgres and initdb in: \(searched.joined(separator: ", "))). \
      Install PostgreSQL, e.g. apt-get install postgresql, or set MARTLET_PG_BIN to the directory of initdb.
      """
    case .socketPathTooLong(let path):
      "\(path) is too long for a unix socket (107 bytes); choose a shorter directory or TMPDIR."
    case .noServiceUser:
      "PostgreSQL refuses to run as root, and there is neither a user postgres nor nobody; run as another user."
    case .builtWithoutTLS(let directory): "The PostgreSQL in \(directory) was built without TLS; choose another."
    case .noFreePort: "No free port on 127.0.0.1 after 100 tries."
    case .invalidSetting(let name): "Not the name of a postgresql.conf setting: \(name)"
    case .systemCall(let name, let code): "\(name) failed: \(describe(errno: code))"
    case .toolFailed(let tool, let exit, let output): "\(tool) failed (\(exit)):\n\(output)"
    case .toolTimedOut(let tool, let limit): "\(tool) took longer than \(limit) and was killed."
    case .portTaken(let port, let log): "Port \(port) on 127.0.0.1 is taken by another process.\n\(log)"
    case .startFailed(let exit, let log): "PostgreSQL did not start (\(exit)). The end of its log:\n\(log)"
    case .startTimedOut(let limit, let log): "PostgreSQL was not ready after \(limit). The end of its log:\n\(log)"
    case .stopTimedOut(let mode, let limit):
      "PostgreSQL was still running \(limit) after a shutdown (\(mode?.rawValue ?? "SIGKILL"))."
    }
  }
}
