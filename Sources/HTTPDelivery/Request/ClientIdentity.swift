/// A certificate and its private key, with which the engine proves who it is (mutual TLS).
///
/// Held in memory and handed to libcurl from there; neither part ever touches a file.
package final class ClientIdentity: Sendable {
  package static let limitBytes = 64 * 1024

  let privateKey: [UInt8]
  /// What is handed to libcurl as the certificate, and what it compares before it uses a connection again: the chain
  /// *and* the key.
  ///
  /// libcurl compares the certificates of two requests, not their keys. Certificates are public: whoever knew another
  /// tenant's could combine it with a key of his own and be given the connection that the other one's key had opened.
  /// With the key behind the chain the two differ; a reader of certificates skips it.
  let certificatesAndKey: [UInt8]
  private let hash: Int

  /// - Parameters:
  ///   - certificateChain: PEM, the client's own certificate first, then those that lead to its authority.
  ///   - privateKey: PEM, not encrypted.
  package init(certificateChain: String, privateKey: String) throws(ClientIdentityError) {
    guard certificateChain.utf8.count <= Self.limitBytes, privateKey.utf8.count <= Self.limitBytes else {
      throw ClientIdentityError("the client certificate or its key is longer than \(Self.limitBytes) bytes")
    }
    guard certificateChain.contains("-----BEGIN CERTIFICATE-----") else {
      throw ClientIdentityError("the client certificate is not PEM: there is no -----BEGIN CERTIFICATE----- in it")
    }
    guard !certificateChain.contains("PRIVATE KEY-----") else {
      throw ClientIdentityError("the client certificate contains a private key: give the two apart")
    }
    // Asked for a passphrase, OpenSSL would prompt for it on the terminal.
    guard !privateKey.contains("-----BEGIN ENCRYPTED"), !privateKey.contains("4,ENCRYPTED") else {
      throw ClientIdentityError("the client certificate's private key is encrypted: store it decrypted")
    }
    guard privateKey.contains("PRIVATE KEY-----") else {
      throw ClientIdentityError("the client certificate's private key is not PEM: there is no -----BEGIN … in it")
    }
    self.privateKey = Array(privateKey.utf8)
    certificatesAndKey = Array((certificateChain + "\n" + privateKey).utf8)
    hash = certificatesAndKey.hashValue
  }
}

extension ClientIdentity: Hashable {
  package static func == (left: ClientIdentity, right: ClientIdentity) -> Bool {
    left === right || (left.hash == right.hash && left.certificatesAndKey == right.certificatesAndKey)
  }

  package func hash(into hasher: inout Hasher) { hasher.combine(hash) }
}

extension ClientIdentity: CustomStringConvertible, CustomReflectable {
  /// Neither a log line nor a dump may show the key.
  package var description: String { "ClientIdentity" }
  package var customMirror: Mirror { Mirror(self, children: []) }
}

/// Why a certificate and key cannot be used. Contains nothing of either.
package struct ClientIdentityError: Error, Sendable, Equatable, CustomStringConvertible {
  package let message: String
  init(_ message: String) { self.message = message }
  package var description: String { message }
}
