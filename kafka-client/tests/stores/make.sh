#!/bin/sh
# Makes the stores of this folder anew, with the keytool of a JDK 17 and OpenSSL 3: the same
# authority and the same client certificate in each kind. Their password is `store word`; the
# key of client-keyword.jks has another.
set -eu
cd "$(dirname "$0")"
rm -f ./*.p12 ./*.jks ./*.pem
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
pass='store word'
export LC_ALL=C.UTF-8
ca="$work/ca.p12"
common="-storepass storeword -keypass storeword"
keytool -genkeypair -alias ca -dname CN=stores -ext bc:c -keyalg EC -validity 365000 \
    -keystore "$ca" $common
keytool -exportcert -rfc -alias ca -keystore "$ca" -storepass storeword -file ca.pem

keytool -genkeypair -alias client -dname CN=client -keyalg RSA -keysize 2048 -validity 365000 \
    -keystore client.p12 -storepass "$pass"
keytool -certreq -alias client -keystore client.p12 -storepass "$pass" |
    keytool -gencert -rfc -alias ca -validity 365000 -keystore "$ca" -storepass storeword \
        > "$work/client.pem"
keytool -importcert -noprompt -alias ca -file ca.pem -keystore client.p12 -storepass "$pass"
keytool -importcert -noprompt -alias client -file "$work/client.pem" -keystore client.p12 \
    -storepass "$pass"

convert() { keytool -importkeystore -srckeystore client.p12 -srcstorepass "$pass" -srcalias client \
    -deststorepass "$pass" -noprompt "$@"; }
convert -destkeystore client-legacy.p12 -J-Dkeystore.pkcs12.legacy
convert -destkeystore client.jks -deststoretype JKS
convert -destkeystore client-keyword.jks -deststoretype JKS -destkeypass 'key wörd'
convert -destkeystore client.jceks.jks -deststoretype JCEKS

keytool -genkeypair -alias curve -dname CN=curve -keyalg EC -groupname secp384r1 -validity 365000 \
    -keystore curve.p12 -storepass "$pass"

trust() { keytool -importcert -noprompt -alias ca -file ca.pem -storepass "$pass" "$@"; }
trust -keystore trust.p12
trust -keystore trust-legacy.p12 -J-Dkeystore.pkcs12.legacy
trust -keystore trust.jks -storetype JKS

openssl pkcs12 -in client.p12 -passin "pass:$pass" -nodes -nocerts | openssl pkey -out "$work/key.pem"
openssl pkcs12 -export -inkey "$work/key.pem" -in "$work/client.pem" -certfile ca.pem \
    -out client-openssl.p12 -passout "pass:$pass"
openssl pkcs12 -export -nokeys -in ca.pem -out trust-costly.p12 -passout "pass:$pass" -iter 1000001
openssl pkcs12 -export -nokeys -in ca.pem -out trust-openssl.p12 -passout "pass:$pass"
openssl pkcs12 -export -nokeys -in ca.pem -out trust-no-password.p12 -passout pass: \
    -keypbe NONE -certpbe NONE -nomac

cat "$work/client.pem" ca.pem > chain.pem
cp "$work/key.pem" key-pkcs8.pem
openssl rsa -traditional -in "$work/key.pem" -out key-pkcs1.pem
openssl ecparam -name prime256v1 -genkey -noout -out key-sec1.pem
encrypt() { openssl pkcs8 -topk8 -in "$work/key.pem" -passout "pass:$pass" "$@"; }
encrypt -out key-aes.pem
encrypt -out key-scrypt.pem -scrypt
encrypt -out key-3des-sha1.pem -v2 des3 -v2prf hmacWithSHA1
encrypt -out key-costly.pem -iter 1000001
encrypt -out key-pbes1.pem -v1 PBE-SHA1-3DES
openssl rsa -traditional -aes128 -in "$work/key.pem" -passout "pass:$pass" -out key-openssl.pem
