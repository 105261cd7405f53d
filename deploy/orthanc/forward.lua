-- Forwards every X-ray image that Orthanc takes in to the node ("dicom-node" in DicomModalities).
-- Reports come back with Modality SR and are not forwarded, so nothing goes in a circle.
local FORWARDED = { CR = true, DX = true, RG = true }

function OnStoredInstance(instance, tags, metadata, origin)
  if FORWARDED[tags['Modality']] then
    SendToModality(instance, 'dicom-node')
  end
end
