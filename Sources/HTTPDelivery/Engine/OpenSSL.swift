import CLibCurl
import Glibc

/// Questions about a TLS session that libcurl passes on no answer to. The library is the one that libcurl has brought into
/// the process; with another one, or none, there are no answers.
enum OpenSSL {
  /// Decrypted bytes that nobody has read yet.
  static func pendingBytes(_ session: OpaquePointer) -> Int { pending.map { Int($0(session)) } ?? 0 }

  /// True if the peers have agreed on HTTP/2.
  static func speaksHTTP2(_ session: OpaquePointer) -> Bool {
    guard let selected else { return false }
    var name: UnsafePointer<UInt8>?
    var count: UInt32 = 0
    selected(session, &name, &count)
    // "h2"
    return count == 2 && name?[0] == 0x68 && name?[1] == 0x32
  }

  private typealias Pending = @convention(c) (OpaquePointer) -> Int32
  private typealias Selected =
    @convention(c) (
      OpaquePointer, UnsafeMutablePointer<UnsafePointer<UInt8>?>, UnsafeMutablePointer<UInt32>
    ) -> Void

  private static let pending = dlsym(nil, "SSL_pending").map { unsafeBitCast($0, to: Pending.self) }
  private static let selected = dlsym(nil, "SSL_get0_alpn_selected").map { unsafeBitCast($0, to: Selected.self) }
}
