import Foundation
import Glibc

/// TLS for a `ScriptedServer`, byte by byte as well: when a connection ends, and how, is the script's business.
///
/// Uses the OpenSSL that libcurl has brought into the process. `@unchecked Sendable`: OpenSSL lets threads share a context
/// that nobody changes any more; the functions are constants.
final class ScriptedTLS: @unchecked Sendable {
  private let context: OpaquePointer
  private let library: Library
  /// The authority that signed its certificate.
  let authorityFile: String

  /// - Parameters:
  ///   - certificate: file of the chain, PEM.
  ///   - key: file of the key, PEM.
  ///   - authority: file of the authority that signed the certificate, PEM.
  ///   - speaksHTTP2: chooses `h2` when the client offers it.
  init(certificate: String, key: String, authority: String, speaksHTTP2: Bool = false) throws {
    authorityFile = authority
    guard let library = Library(), let context = library.newContext(library.serverMethod()),
      library.useChain(context, certificate) == 1, library.useKey(context, key, 1) == 1
    else { throw ProcessError(command: "OpenSSL", output: "no context for \(certificate)") }
    self.context = context
    self.library = library
    // OpenSSL writes without MSG_NOSIGNAL, and clients go away.
    signal(SIGPIPE, SIG_IGN)
    if speaksHTTP2 { library.chooseProtocol(context, Self.chooseHTTP2, nil) }
  }

  /// For `localhost`; made once, for making certificates takes its time. The files go with the machine's temporary ones.
  static func shared(speaksHTTP2: Bool = false) async throws -> ScriptedTLS {
    let files = try await sharedFiles.value
    return try ScriptedTLS(
      certificate: files.certificate,
      key: files.key,
      authority: files.authority,
      speaksHTTP2: speaksHTTP2
    )
  }

  private static let sharedFiles = Task {
    let certificates = try await Certificates(in: temporaryDirectory())
    let (certificate, key) = try await certificates.make(.valid)
    return (certificate: certificate, key: key, authority: certificates.authorityFile)
  }

  func accept(_ descriptor: Int32) -> Session? {
    guard let ssl = library.new(context) else { return nil }
    let session = Session(ssl: ssl, library: library)
    return library.setDescriptor(ssl, descriptor) == 1 && library.accept(ssl) == 1 ? session : nil
  }

  /// One connection. `@unchecked Sendable`: used by the thread of its script alone.
  final class Session: @unchecked Sendable {
    private let ssl: OpaquePointer
    private let library: Library

    fileprivate init(ssl: OpaquePointer, library: Library) {
      self.ssl = ssl
      self.library = library
    }

    deinit { library.free(ssl) }

    func read(_ buffer: inout [UInt8]) -> Int { Int(library.read(ssl, &buffer, Int32(buffer.count))) }
    func write(_ bytes: UnsafeRawBufferPointer) -> Int {
      // A TLS record at a time: so a script knows what the client reads at once.
      Int(library.write(ssl, bytes.baseAddress, Int32(min(bytes.count, 16_384))))
    }
    /// Says that nothing more follows. A script that does not wish to, closes the socket.
    func end() { _ = library.shutdown(ssl) }
  }

  fileprivate typealias Choose =
    @convention(c) (
      OpaquePointer?, UnsafeMutablePointer<UnsafePointer<UInt8>?>?, UnsafeMutablePointer<UInt8>?,
      UnsafePointer<UInt8>?, UInt32, UnsafeMutableRawPointer?
    ) -> Int32

  /// Looks for "\u{2}h2" in the client's list, and points into it.
  private static let chooseHTTP2: Choose = { _, chosen, chosenCount, offered, count, _ in
    guard let offered, let chosen, let chosenCount else { return 3 }
    var index = 0
    while index < Int(count) {
      let length = Int(offered[index])
      if length == 2, offered[index + 1] == 0x68, offered[index + 2] == 0x32 {
        chosen.pointee = offered + index + 1
        chosenCount.pointee = 2
        return 0
      }
      index += length + 1
    }
    // SSL_TLSEXT_ERR_NOACK
    return 3
  }

  fileprivate struct Library {
    let serverMethod: @convention(c) () -> OpaquePointer?
    let newContext: @convention(c) (OpaquePointer?) -> OpaquePointer?
    let useChain: @convention(c) (OpaquePointer, UnsafePointer<CChar>) -> Int32
    let useKey: @convention(c) (OpaquePointer, UnsafePointer<CChar>, Int32) -> Int32
    let chooseProtocol: @convention(c) (OpaquePointer, Choose, UnsafeMutableRawPointer?) -> Void
    let new: @convention(c) (OpaquePointer) -> OpaquePointer?
    let setDescriptor: @convention(c) (OpaquePointer, Int32) -> Int32
    let accept: @convention(c) (OpaquePointer) -> Int32
    let read: @convention(c) (OpaquePointer, UnsafeMutableRawPointer?, Int32) -> Int32
    let write: @convention(c) (OpaquePointer, UnsafeRawPointer?, Int32) -> Int32
    let shutdown: @convention(c) (OpaquePointer) -> Int32
    let free: @convention(c) (OpaquePointer) -> Void

    init?() {
      func symbol<Function>(_ name: String) -> Function? {
        dlsym(nil, name).map { unsafeBitCast($0, to: Function.self) }
      }
      guard let serverMethod: @convention(c) () -> OpaquePointer? = symbol("TLS_server_method"),
        let newContext: @convention(c) (OpaquePointer?) -> OpaquePointer? = symbol("SSL_CTX_new"),
        let useChain: @convention(c) (OpaquePointer, UnsafePointer<CChar>) -> Int32 =
          symbol("SSL_CTX_use_certificate_chain_file"),
        let useKey: @convention(c) (OpaquePointer, UnsafePointer<CChar>, Int32) -> Int32 =
          symbol("SSL_CTX_use_PrivateKey_file"),
        let chooseProtocol: @convention(c) (OpaquePointer, Choose, UnsafeMutableRawPointer?) -> Void =
          symbol("SSL_CTX_set_alpn_select_cb"),
        let new: @convention(c) (OpaquePointer) -> OpaquePointer? = symbol("SSL_new"),
        let setDescriptor: @convention(c) (OpaquePointer, Int32) -> Int32 = symbol("SSL_set_fd"),
        let accept: @convention(c) (OpaquePointer) -> Int32 = symbol("SSL_accept"),
        let read: @convention(c) (OpaquePointer, UnsafeMutableRawPointer?, Int32) -> Int32 = symbol("SSL_read"),
        let write: @convention(c) (OpaquePointer, UnsafeRawPointer?, Int32) -> Int32 = symbol("SSL_write"),
        let shutdown: @convention(c) (OpaquePointer) -> Int32 = symbol("SSL_shutdown"),
        let free: @convention(c) (OpaquePointer) -> Void = symbol("SSL_free")
      else { return nil }
      self.serverMethod = serverMethod
      self.newContext = newContext
      self.useChain = useChain
      self.useKey = useKey
      self.chooseProtocol = chooseProtocol
      self.new = new
      self.setDescriptor = setDescriptor
      self.accept = accept
      self.read = read
      self.write = write
      self.shutdown = shutdown
      self.free = free
    }
  }
}
