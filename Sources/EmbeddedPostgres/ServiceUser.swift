import Foundation

/// Whom the server runs as. PostgreSQL refuses to run as root, as it should.
struct ServiceUser: Sendable {
  let uid: uid_t
  let gid: gid_t

  /// nil if we are not root: the server then runs as we do.
  static func ifRoot() throws -> ServiceUser? {
    guard geteuid() == 0 else { return nil }
    guard let user = named("postgres") ?? named("nobody") else { throw EmbeddedPostgresError.noServiceUser }
    return user
  }

  /// A command that drops to this user for good and then becomes the other command, keeping its process id.
  func command(_ arguments: [String]) -> [String] {
    ["setpriv", "--reuid=\(uid)", "--regid=\(gid)", "--clear-groups", "--"] + arguments
  }

  func own(_ file: URL) throws {
    guard chown(file.path, uid, gid) == 0 else {
      throw EmbeddedPostgresError.systemCall("chown \(file.path)", errno: errno)
    }
  }

  private static func named(_ name: String) -> ServiceUser? {
    var entry = passwd()
    var found: UnsafeMutablePointer<passwd>?
    var buffer = [CChar](repeating: 0, count: 16_384)
    guard getpwnam_r(name, &entry, &buffer, buffer.count, &found) == 0, found != nil, entry.pw_uid != 0 else {
      return nil
    }
    return ServiceUser(uid: entry.pw_uid, gid: entry.pw_gid)
  }
}
